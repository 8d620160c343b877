// Package compat drives kpy with Go's Kafka clients. KPY_BOOTSTRAP is the broker; test_go_clients.py starts one.
package compat

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

const (
	patience = 60 * time.Second
	interval = 20 * time.Millisecond
)

// reading is what all members of a group have read together, with repeats.
type reading struct {
	mu     sync.Mutex
	values map[string]int
}

func newReading() *reading { return &reading{values: map[string]int{}} }

func (r *reading) add(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values[value]++
}

func (r *reading) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	for _, times := range r.values {
		total += times
	}
	return total
}

// hasAll tells whether the records numbered 0 to count - 1 have been read.
func (r *reading) hasAll(count int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number := range count {
		if r.values[fmt.Sprint(number)] == 0 {
			return false
		}
	}
	return true
}

func bootstrap(t *testing.T) string {
	t.Helper()
	address := os.Getenv("KPY_BOOTSTRAP")
	if address == "" {
		t.Skip("KPY_BOOTSTRAP is not set")
	}
	return address
}

func unique(prefix string) string {
	bytes := make([]byte, 6)
	_, _ = rand.Read(bytes)
	return prefix + "-" + hex.EncodeToString(bytes)
}

// shared tells whether the members own every partition, and each partition once.
func shared(partitions int, owned ...[]int32) bool {
	owners := map[int32]int{}
	for _, each := range owned {
		for _, partition := range each {
			owners[partition]++
		}
	}
	for _, count := range owners {
		if count != 1 {
			return false
		}
	}
	return len(owners) == partitions
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(interval)
	}
}
