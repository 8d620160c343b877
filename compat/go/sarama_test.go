package compat

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// saramaMember is one sarama consumer group client, and what its present session claims.
type saramaMember struct {
	group  sarama.ConsumerGroup
	cancel context.CancelFunc
	done   chan struct{}
	read   *reading

	mu         sync.Mutex
	claims     []int32
	memberID   string
	generation int32
}

func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memberID, m.generation, m.claims = session.MemberID(), session.GenerationID(), nil
	for _, partitions := range session.Claims() {
		m.claims = append(m.claims, partitions...)
	}
	return nil
}

func (m *saramaMember) Cleanup(sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims = nil
	return nil
}

func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.read.add(string(message.Value))
		session.MarkMessage(message, "")
	}
	return nil
}

func (m *saramaMember) owns() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]int32{}, m.claims...)
}

func (m *saramaMember) leave(t *testing.T) {
	t.Helper()
	m.cancel()
	<-m.done
	if err := m.group.Close(); err != nil {
		t.Error(err)
	}
}

func saramaConfig(strategy sarama.BalanceStrategy) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	return config
}

func joinSarama(t *testing.T, topic, group string, read *reading, config *sarama.Config) *saramaMember {
	t.Helper()
	consumer, err := sarama.NewConsumerGroup([]string{bootstrap(t)}, group, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	member := &saramaMember{group: consumer, cancel: cancel, done: make(chan struct{}), read: read}
	go func() {
		defer close(member.done)
		for ctx.Err() == nil {
			if err := consumer.Consume(ctx, []string{topic}, member); err != nil {
				if !errors.Is(err, sarama.ErrClosedConsumerGroup) && ctx.Err() == nil {
					t.Errorf("consuming: %v", err)
				}
				return
			}
		}
	}()
	return member
}

func TestSaramaGroupsOfEveryStrategyShareAllPartitions(t *testing.T) {
	strategies := map[string]sarama.BalanceStrategy{
		"range":      sarama.NewBalanceStrategyRange(),
		"roundrobin": sarama.NewBalanceStrategyRoundRobin(),
		"sticky":     sarama.NewBalanceStrategySticky(),
	}
	for name, strategy := range strategies {
		t.Run(name, func(t *testing.T) {
			const partitions = 4
			topic, group := unique(name), unique("group")
			createTopic(t, topic, partitions)
			produce(t, topic, partitions, 0, 80)
			read := newReading()
			first := joinSarama(t, topic, group, read, saramaConfig(strategy))
			second := joinSarama(t, topic, group, read, saramaConfig(strategy))
			eventually(t, "two members share four partitions", func() bool {
				return shared(partitions, first.owns(), second.owns()) && len(first.owns()) == 2
			})
			eventually(t, "every record is read", func() bool { return read.hasAll(80) })
			first.leave(t)
			eventually(t, "the other takes over", func() bool { return shared(partitions, second.owns()) })
			produce(t, topic, partitions, 80, 40)
			eventually(t, "every new record is read", func() bool { return read.hasAll(120) })
			second.leave(t)
			again := newReading()
			last := joinSarama(t, topic, group, again, saramaConfig(strategy))
			produce(t, topic, partitions, 120, 4)
			eventually(t, "the newest records are read", func() bool { return again.count() >= 4 })
			last.leave(t)
			if again.count() != 4 {
				t.Errorf("%d records were read again", again.count()-4)
			}
		})
	}
}

func TestSaramaStaticMemberComesBackUnderAnotherIdInTheSameGeneration(t *testing.T) {
	const partitions = 2
	topic, group := unique("static"), unique("group")
	createTopic(t, topic, partitions)
	config := func(instance string) *sarama.Config {
		config := saramaConfig(sarama.NewBalanceStrategyRange())
		config.Consumer.Group.InstanceId = instance
		return config
	}
	read := newReading()
	steady := joinSarama(t, topic, group, read, config("steady"))
	moving := joinSarama(t, topic, group, read, config("moving"))
	eventually(t, "two static members share two partitions", func() bool {
		return shared(partitions, steady.owns(), moving.owns()) && len(moving.owns()) == 1
	})
	before, memberID := moving.generation, moving.memberID
	moving.leave(t)
	moving = joinSarama(t, topic, group, read, config("moving"))
	eventually(t, "the member is back", func() bool { return shared(partitions, steady.owns(), moving.owns()) })
	if moving.generation != before || moving.memberID == memberID {
		t.Errorf("generation %d -> %d, member %s -> %s", before, moving.generation, memberID, moving.memberID)
	}
	steady.leave(t)
	moving.leave(t)
}

func TestSaramaAdministersGroups(t *testing.T) {
	topic, group := unique("admin"), unique("group")
	createTopic(t, topic, 2)
	produce(t, topic, 2, 0, 10)
	config := saramaConfig(sarama.NewBalanceStrategyRange())
	admin, err := sarama.NewClusterAdmin([]string{bootstrap(t)}, config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	read := newReading()
	member := joinSarama(t, topic, group, read, config)
	eventually(t, "every record is read", func() bool { return read.hasAll(10) })
	described, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil || described[0].State != "Stable" || len(described[0].Members) != 1 {
		t.Errorf("described as %+v, %v", described, err)
	}
	if err := admin.DeleteConsumerGroup(group); !errors.Is(err, sarama.ErrNonEmptyGroup) {
		t.Errorf("a group with a member was deleted: %v", err)
	}
	member.leave(t)
	offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1}})
	if err != nil || offsets.GetBlock(topic, 0).Offset != 5 || offsets.GetBlock(topic, 1).Offset != 5 {
		t.Errorf("committed %+v, %v", offsets, err)
	}
	if err := admin.DeleteConsumerGroupOffset(group, topic, 0); err != nil {
		t.Error(err)
	}
	if err := admin.DeleteConsumerGroup(group); err != nil {
		t.Error(err)
	}
	if err := admin.DeleteConsumerGroup(group); !errors.Is(err, sarama.ErrGroupIDNotFound) {
		t.Errorf("a group was deleted twice: %v", err)
	}
}
