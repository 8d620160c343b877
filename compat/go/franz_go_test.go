package compat

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franzMember is one kgo client in a group. It tells what it owns and what it has read.
type franzMember struct {
	client *kgo.Client
	done   chan struct{}

	mu    sync.Mutex
	owned map[int32]bool
	lost  int
}

func joinFranz(t *testing.T, topic, group string, read *reading, opts ...kgo.Opt) *franzMember {
	t.Helper()
	member := &franzMember{done: make(chan struct{}), owned: map[int32]bool{}}
	change := func(owns bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			member.mu.Lock()
			defer member.mu.Unlock()
			for _, partition := range topics[topic] {
				if owns {
					member.owned[partition] = true
				} else {
					delete(member.owned, partition)
				}
			}
		}
	}
	gone := change(false)
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap(t)),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.AutoCommitInterval(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, topics map[string][]int32) {
			// With a callback of one's own, committing before others take over is one's own duty too.
			if err := client.CommitUncommittedOffsets(ctx); err != nil {
				t.Errorf("committing what is revoked: %v", err)
			}
			gone(ctx, client, topics)
		}),
		kgo.OnPartitionsLost(func(ctx context.Context, client *kgo.Client, topics map[string][]int32) {
			member.mu.Lock()
			member.lost++
			member.mu.Unlock()
			gone(ctx, client, topics)
		}),
	}, opts...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	member.client = client
	go func() {
		defer close(member.done)
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachError(func(topic string, partition int32, err error) {
				t.Errorf("fetching %s-%d: %v", topic, partition, err)
			})
			fetches.EachRecord(func(record *kgo.Record) { read.add(string(record.Value)) })
		}
	}()
	return member
}

func (m *franzMember) owns() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	owned := []int32{}
	for partition := range m.owned {
		owned = append(owned, partition)
	}
	return owned
}

func (m *franzMember) leave() {
	_ = m.client.CommitUncommittedOffsets(context.Background())
	m.client.Close()
	<-m.done
}

func createTopic(t *testing.T, topic string, partitions int32) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = topic, partitions, 1
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(context.Background(), client)
	if err != nil || response.Topics[0].ErrorCode != 0 {
		t.Fatalf("creating %s: %v, %+v", topic, err, response)
	}
}

// produce writes count records, numbered from first on, to all partitions in turn.
func produce(t *testing.T, topic string, partitions int32, first, count int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap(t)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	records := []*kgo.Record{}
	for number := first; number < first+count; number++ {
		value := []byte(fmt.Sprint(number))
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(number) % partitions, Value: value})
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestFranzGoGroupsOfEveryBalancerShareAllPartitions(t *testing.T) {
	balancers := map[string]kgo.GroupBalancer{
		"range":              kgo.RangeBalancer(),
		"roundrobin":         kgo.RoundRobinBalancer(),
		"sticky":             kgo.StickyBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			const partitions = 6
			topic, group := unique(name), unique("group")
			createTopic(t, topic, partitions)
			produce(t, topic, partitions, 0, 120)
			read := newReading()
			members := []*franzMember{}
			for range 3 {
				members = append(members, joinFranz(t, topic, group, read, kgo.Balancers(balancer)))
			}
			eventually(t, "three members share six partitions", func() bool {
				return shared(partitions, members[0].owns(), members[1].owns(), members[2].owns()) &&
					len(members[0].owns()) == 2 && len(members[1].owns()) == 2
			})
			members[1].leave()
			eventually(t, "two members share them", func() bool {
				return shared(partitions, members[0].owns(), members[2].owns()) && len(members[0].owns()) == 3
			})
			produce(t, topic, partitions, 120, 120)
			eventually(t, "every record is read", func() bool { return read.hasAll(240) })
			for _, member := range []*franzMember{members[0], members[2]} {
				member.leave()
				if member.lost != 0 {
					t.Errorf("a member lost its partitions %d times", member.lost)
				}
			}
			// What was read was committed: nothing of it comes again.
			again := newReading()
			last := joinFranz(t, topic, group, again, kgo.Balancers(balancer))
			produce(t, topic, partitions, 240, 6)
			eventually(t, "the new records are read", func() bool { return again.count() >= 6 })
			last.leave()
			if again.count() != 6 {
				t.Errorf("%d records were read again", again.count()-6)
			}
		})
	}
}

func TestFranzGoStaticMemberComesBackToItsPartitions(t *testing.T) {
	const partitions = 4
	topic, group := unique("static"), unique("group")
	createTopic(t, topic, partitions)
	read := newReading()
	steady := joinFranz(t, topic, group, read, kgo.InstanceID("steady"), kgo.Balancers(kgo.RangeBalancer()))
	moving := joinFranz(t, topic, group, read, kgo.InstanceID("moving"), kgo.Balancers(kgo.RangeBalancer()))
	eventually(t, "two static members share four partitions", func() bool {
		return shared(partitions, steady.owns(), moving.owns()) && len(steady.owns()) == 2
	})
	_, generation := steady.client.GroupMetadata()
	// A static member does not leave when it is closed.
	moving.leave()
	moving = joinFranz(t, topic, group, read, kgo.InstanceID("moving"), kgo.Balancers(kgo.RangeBalancer()))
	eventually(t, "the member is back", func() bool { return shared(partitions, steady.owns(), moving.owns()) })
	if _, now := steady.client.GroupMetadata(); now != generation {
		t.Errorf("the generation went from %d to %d", generation, now)
	}
	steady.leave()
	moving.leave()
}
