package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// takeoverFaults strike the leader while another relay waits. Until the first
// one's lease is over the other must not publish, and soon after it must.
func takeoverFaults() []Fault {
	return []Fault{
		{
			Name: "leader-stopped", Description: "the leader is stopped in order with rows in flight; another relay takes over within 3 s",
			Relays: 2, within: func(time.Duration) time.Duration { return 3 * time.Second }, strike: stopLeader,
		},
		{
			Name: "leader-killed", Description: "kill -9 of the leader with rows in flight; another relay takes over within wal_sender_timeout + 3 s",
			Relays: 2, within: func(timeout time.Duration) time.Duration { return timeout + 3*time.Second }, strike: killLeader,
		},
		{
			Name: "leader-cut-off", Description: "no byte passes any more between the leader and Postgres, while it reaches Kafka; another relay takes over within 2 wal_sender_timeouts; the way is free again when all is quiet",
			Relays: 2, within: func(timeout time.Duration) time.Duration { return 2 * timeout }, strike: cutLeaderOff,
		},
		{
			Name: "relay-frozen", Description: "SIGSTOP of the leader with hundreds of rows in flight; another relay takes over; SIGCONT when all is quiet (counted from the SIGSTOP)",
			Relays: 2, strike: freezeRelay,
		},
		{
			Name: "frozen-compacted", Description: "relay-frozen on a topic that is compacted all the time",
			Relays: 2, Compacted: true, strike: freezeOnCompacted,
		},
	}
}

func stopLeader(ctx context.Context, s *Stage) (string, error) {
	return s.replaceLeader(ctx, func(p *Player) error { return s.Stop(ctx, p) })
}

func killLeader(ctx context.Context, s *Stage) (string, error) {
	return s.replaceLeader(ctx, func(p *Player) error { p.Kill(); return nil })
}

func (s *Stage) replaceLeader(ctx context.Context, end func(*Player) error) (string, error) {
	leader, other := s.leaderAndOther(ctx)
	if other == nil {
		return "", void("nobody leads")
	}
	rows, before, err := s.InFlight(ctx, leader)
	if err != nil {
		return "", err
	}
	if err := end(leader); err != nil {
		return "", err
	}
	s.Over()
	after, err := s.Led(ctx, other, before)
	return fmt.Sprintf("%d rows in flight; walsender %d → %d", rows, before, after), err
}

// cutLeaderOff gives the other relay a way of its own to the server, where the
// leader's host seems to have vanished: its connections stand and carry nothing.
func cutLeaderOff(ctx context.Context, s *Stage) (string, error) {
	leader, other := s.leaderAndOther(ctx)
	if other == nil {
		return "", void("nobody leads")
	}
	other.Kill()
	other.Relay.Env = append(other.Relay.Env, "OUTRIDER_DATABASE_URL="+s.url)
	if err := errors.Join(other.Start(), s.plays(ctx, other, "standby")); err != nil {
		return "", err
	}
	rows, before, err := s.InFlight(ctx, leader)
	if err != nil {
		return "", err
	}
	s.link.Stall(proxy.Both)
	defer s.link.Pass()
	s.Over()
	after, err := s.Led(ctx, other, before)
	if err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	if err := errors.Join(s.Arrived(ctx, 100+s.Rand.IntN(500)), s.Quiet(ctx)); err != nil {
		return "", err
	}
	s.link.Pass()
	evidence := fmt.Sprintf("%s cut off with %d rows in flight; walsender %d → %d", leader.Name, rows, before, after)
	return evidence, s.plays(ctx, leader, "standby")
}

// freezeRelay leaves the leader frozen until another one has published all there
// is, and thaws it when nobody writes any more: whatever it still sends would
// be the last record of its key for good. Under traffic the next row would hide it.
func freezeRelay(ctx context.Context, s *Stage) (string, error) {
	leader, other := s.leaderAndOther(ctx)
	if other == nil {
		return "", void("nobody leads")
	}
	before, err := s.Walsender(ctx)
	if err != nil {
		return "", err
	}
	held, err := s.FreezeHolding(ctx, leader, 100+s.Rand.IntN(400))
	if err != nil {
		return "", err
	}
	s.Over()
	after, err := s.Led(ctx, other, before)
	if err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	if err := s.Quiet(ctx); err != nil {
		return "", err
	}
	if err := leader.Thaw(); err != nil {
		return "", err
	}
	evidence := fmt.Sprintf("%s frozen with %d rows in flight; walsender %d → %d", leader.Name, held, before, after)
	return evidence, s.plays(ctx, leader, "standby")
}

// leaderAndOther are the leader and a relay that waits; nil if nobody leads.
func (s *Stage) leaderAndOther(ctx context.Context) (leader, other *Player) {
	if leader = s.Leader(ctx); leader == nil {
		return nil, nil
	}
	for _, p := range s.Relays {
		if p != leader {
			return leader, p
		}
	}
	return leader, nil
}

// compaction returns settings of a topic that Kafka compacts as eagerly as it
// can, and has the brokers look for work all the time.
func compaction(ctx context.Context, admin *kadm.Client) (map[string]*string, error) {
	_, err := admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "log.cleaner.backoff.ms", Value: new("200")}})
	if err != nil {
		return nil, fmt.Errorf("hurry the log cleaner: %w", err)
	}
	return map[string]*string{
		"cleanup.policy": new("compact"), "segment.ms": new("500"), "min.cleanable.dirty.ratio": new("0.01"),
		"min.compaction.lag.ms": new("5000"), // the reader of the run must see every record first
	}, nil
}

// freezeOnCompacted reads the topic once more when all is over: of what is
// left, the last record of each key must be the one that was last before.
func freezeOnCompacted(ctx context.Context, s *Stage) (string, error) {
	evidence, err := freezeRelay(ctx, s)
	if err != nil {
		return "", err
	}
	before := s.Reader.Records()
	var left []Record
	err = s.until(ctx, "the topic is compacted", func(ctx context.Context) (bool, error) {
		again, err := NewReader(ReaderConfig{Brokers: s.cfg.Cluster.Direct(), Topics: []string{s.topic}})
		if err != nil {
			return false, err
		}
		reading, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = again.Run(reading) }()
		err = again.CatchUp(ctx)
		stop()
		<-done
		left = again.Records()
		return len(left) < len(before)*9/10, err
	})
	if err != nil {
		return "", err
	}
	want, got := lastOfKeys(before), lastOfKeys(left)
	for key, id := range want {
		if got[key] != id {
			return "", fmt.Errorf("the compacted topic keeps %s for key %q, and %s was written last", got[key], key, id)
		}
	}
	return fmt.Sprintf("%s; %d of %d records are left", evidence, len(left), len(before)), nil
}

func lastOfKeys(records []Record) map[string]ID {
	last, offsets := map[string]ID{}, map[string]int64{}
	for i := range records {
		if r := &records[i]; r.Offset >= offsets[r.Key] {
			last[r.Key], offsets[r.Key] = r.ID, r.Offset
		}
	}
	return last
}
