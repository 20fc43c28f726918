package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// kafkaFaults happen to brokers, or to the network before them.
func kafkaFaults() []Fault {
	return []Fault{
		{
			Name: "broker-killed", Description: "kill -9 of the only broker with rows in flight, then a start",
			strike: killBroker,
		},
		{
			Name: "broker-away", Description: "the only broker is killed and stays away for 15 s; the budget is full",
			Budget: 1 << 20, strike: holdBroker,
		},
		{
			Name: "leader-change", Description: "kill -9 of the node that leads a partition, of three; another one leads",
			Nodes: 3, strike: changeLeader,
		},
		{
			Name: "kafka-reset", Description: "RST on all connections between relay and Kafka with rows in flight, three times",
			strike: resetKafka,
		},
		{
			Name: "kafka-black-hole", Description: "for 6 to 12 s no byte passes between relay and Kafka, and no connection ends",
			strike: swallowKafka,
		},
		{
			Name: "kafka-slow", Description: "for 5 to 8 s each connection to Kafka passes 20 kB/s",
			strike: slowKafka,
		},
	}
}

func killBroker(ctx context.Context, s *Stage) (string, error) {
	rows, _, err := s.InFlight(ctx, s.Relays[0])
	if err != nil {
		return "", err
	}
	before := s.cfg.Cluster.Pid(1)
	if err := s.cfg.Cluster.Kill(1); err != nil {
		return "", err
	}
	if err := s.cfg.Cluster.StartNode(ctx, 1); err != nil {
		return "", err
	}
	s.Over()
	forgotten, err := s.endForgotten(ctx)
	if err != nil {
		return "", err
	}
	if before == 0 || before == s.cfg.Cluster.Pid(1) {
		return "", void("the broker is process %d, and was", before)
	}
	return fmt.Sprintf("%d rows in flight; broker %d → %d", rows, before, s.cfg.Cluster.Pid(1)) + forgotten, nil
}

// outage is how long the broker stays away; most of it the budget must be full.
const outage, atLeastFull = 15 * time.Second, 5 * time.Second

func holdBroker(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	rows, before, err := s.InFlight(ctx, p)
	if err != nil {
		return "", err
	}
	if err := s.cfg.Cluster.Kill(1); err != nil {
		return "", err
	}
	gone := time.Now()
	err = s.until(ctx, "the budget is full", func(ctx context.Context) (bool, error) {
		status, err := p.Status(ctx)
		return status.BudgetFull, err
	})
	full := time.Now()
	if err == nil {
		err = wait(ctx, outage-time.Since(gone))
	}
	status, statusErr := p.Status(ctx)
	after, senderErr := s.Walsender(ctx)
	lasted := time.Since(full)
	if err := s.cfg.Cluster.StartNode(ctx, 1); err != nil {
		return "", err
	}
	s.Over()
	forgotten, forgottenErr := s.endForgotten(ctx)
	switch {
	case err != nil || forgottenErr != nil:
		return "", errors.Join(err, forgottenErr)
	case statusErr != nil || senderErr != nil:
		return "", fmt.Errorf("during the outage: relay %w, slot %w", statusErr, senderErr)
	case s.exactlyOnce() && after == 0:
		return "", errors.New("the slot was given up during the outage")
	case s.exactlyOnce() && lasted >= atLeastFull: // the transaction has run out, and the leader waits with an empty hand for Kafka
		return fmt.Sprintf("%d rows in flight; away for %s; slot held by walsender %d, before by %d", rows, time.Since(gone).Round(100*time.Millisecond), after, before) + forgotten, nil
	case !status.BudgetFull || lasted < atLeastFull:
		return "", void("the budget was full for %s only", lasted)
	case after != before:
		return "", fmt.Errorf("the slot's connection was given up during the outage: walsender %d → %d", before, after)
	}
	return fmt.Sprintf("%d rows in flight; budget full for %s; walsender %d kept", rows, lasted.Round(100*time.Millisecond), before), nil
}

func changeLeader(ctx context.Context, s *Stage) (string, error) {
	before, err := s.leaderOf(ctx, 0)
	if err != nil {
		return "", err
	}
	rows, _, err := s.InFlight(ctx, s.Relays[0])
	if err != nil {
		return "", err
	}
	if err := s.cfg.Cluster.Kill(before); err != nil {
		return "", err
	}
	after := 0
	err = s.until(ctx, "another node leads", func(ctx context.Context) (bool, error) {
		after, err = s.leaderOf(ctx, 0)
		return err == nil && after > 0 && after != before, err
	})
	s.Over()
	if err == nil {
		s.flowing, err = s.Flow(ctx)
	}
	if err := s.cfg.Cluster.StartNode(ctx, before); err != nil {
		return "", err
	}
	if err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.Step)
	defer cancel()
	return fmt.Sprintf("%d rows in flight; leader of partition 0: node %d → %d", rows, before, after), s.cfg.Cluster.WaitInSync(limited)
}

// leaderOf is the node that leads a partition.
func (s *Stage) leaderOf(ctx context.Context, partition int32) (int, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Cluster.Direct()...))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx, s.topic)
	if err != nil {
		return 0, fmt.Errorf("ask for leaders: %w", err)
	}
	return int(topics[s.topic].Partitions[partition].Leader), nil
}

func resetKafka(ctx context.Context, s *Stage) (string, error) {
	rows, connections := 0, 0
	cut := func(link *proxy.Proxy) {
		connections += link.Connections()
		link.Reset()
	}
	for range 2 {
		n, _, err := s.InFlight(ctx, s.Relays[0])
		if err != nil {
			return "", err
		}
		rows += n
		s.eachLink(cut)
		s.Over()
		if err := s.Arrived(ctx, 50+s.Rand.IntN(200)); err != nil {
			return "", err
		}
	}
	if connections == 0 {
		return "", void("the relay had no connection")
	}
	n, _, err := s.InFlight(ctx, s.Relays[0])
	s.eachLink(cut)
	s.Over()
	return fmt.Sprintf("%d connections reset, %d rows in flight", connections, rows+n), err
}

func swallowKafka(ctx context.Context, s *Stage) (string, error) {
	return s.hinder(ctx, s.between(6*time.Second, 12*time.Second), func(link *proxy.Proxy) { link.Stall(proxy.Both) })
}

func slowKafka(ctx context.Context, s *Stage) (string, error) {
	return s.hinder(ctx, s.between(5*time.Second, 8*time.Second), func(link *proxy.Proxy) { link.Slow(20_000) })
}

// hinder does something to all links to Kafka for a while. It bit if more rows
// wait for Kafka at the end than did before.
func (s *Stage) hinder(ctx context.Context, d time.Duration, harm func(*proxy.Proxy)) (string, error) {
	rows, _, err := s.InFlight(ctx, s.Relays[0])
	if err != nil {
		return "", err
	}
	before, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	s.eachLink(harm)
	defer s.eachLink((*proxy.Proxy).Pass)
	if err := wait(ctx, d); err != nil {
		return "", err
	}
	after, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	s.eachLink((*proxy.Proxy).Pass)
	s.Over()
	if after <= before || after < 100 {
		return "", void("%d rows waited for Kafka before, %d at the end", before, after)
	}
	return fmt.Sprintf("%d rows in flight; %d rows waited for Kafka before, %d after %s", rows, before, after, d.Round(100*time.Millisecond)), nil
}
