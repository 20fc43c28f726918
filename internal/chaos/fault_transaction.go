package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// transactionFaults strike at the steps of a Kafka transaction.
func transactionFaults() []Fault {
	return []Fault{
		{
			Name: "commit-answer-lost", Description: "three times the connection is reset when the answer to EndTxn comes, which the relay does not get to see",
			Exactly: true, strike: loseCommitAnswer,
		},
		{
			Name: "broker-killed-at-commit", Description: "kill -9 of the only broker when it has answered EndTxn: between prepare and commit",
			Exactly: true, strike: killAtCommit,
		},
		{
			Name: "coordinator-killed-at-commit", Description: "kill -9 of the transaction coordinator, of three nodes, when it has answered EndTxn",
			Exactly: true, Nodes: 3, strike: killAtCommit,
		},
		{
			Name: "coordinator-moved", Description: "the node that coordinates the relay's transactions is stopped, of three; another one takes over",
			Exactly: true, Nodes: 3, strike: moveCoordinator,
		},
		{
			Name: "producer-expired", Description: "nothing is written until the brokers have forgotten transactional id and producer id",
			Exactly: true, strike: expireProducer,
			Properties: "transactional.id.expiration.ms=2000,transaction.remove.expired.transaction.cleanup.interval.ms=500,producer.id.expiration.ms=2000,producer.id.expiration.check.interval.ms=500",
		},
		{
			Name: "checkpoints-deleted", Description: "the topic of checkpoints is deleted under the relay: it halts, and goes on when its printed statement is run",
			Exactly: true, Repeats: true, strike: deleteCheckpoints,
		},
		{
			Name: "zombie", Description: "the leader is frozen when it has sent rows of a transaction, another one takes over; thawed, it goes on with its transaction",
			Exactly: true, Relays: 2, strike: wakeZombie,
		},
	}
}

// sprung waits until a trap was sprung.
func (s *Stage) sprung(ctx context.Context, what string, sprung <-chan struct{}) error {
	defer s.cfg.Wire.clear()
	return s.until(ctx, what, func(context.Context) (bool, error) {
		select {
		case <-sprung:
			return true, nil
		default:
			return false, nil
		}
	})
}

func loseCommitAnswer(ctx context.Context, s *Stage) (string, error) {
	for range 3 {
		lost := s.cfg.Wire.set(apiEndTransaction, true, func(int) bool { return false })
		if err := s.sprung(ctx, "a transaction ends", lost); err != nil {
			return "", err
		}
		s.Over()
		if _, err := s.Flow(ctx); err != nil {
			return "", err
		}
	}
	return "three answers to EndTxn were lost", nil
}

func killAtCommit(ctx context.Context, s *Stage) (string, error) {
	killed, err := 0, error(nil)
	answered := s.cfg.Wire.set(apiEndTransaction, true, func(node int) bool {
		killed, err = node, s.cfg.Cluster.Kill(node)
		return false
	})
	if err := s.sprung(ctx, "a transaction ends", answered); err != nil {
		return "", err
	}
	if err != nil {
		return "", err
	}
	if s.cfg.Cluster.Nodes() > 1 {
		s.Over()
		if s.flowing, err = s.Flow(ctx); err != nil {
			return "", err
		}
	}
	if err := s.cfg.Cluster.StartNode(ctx, killed); err != nil {
		return "", err
	}
	forgotten, err := s.endForgotten(ctx)
	if err != nil {
		return "", err
	}
	if s.cfg.Cluster.Nodes() == 1 {
		s.Over()
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.Step)
	defer cancel()
	return fmt.Sprintf("node %d killed as it had answered", killed) + forgotten, s.cfg.Cluster.WaitInSync(limited)
}

func moveCoordinator(ctx context.Context, s *Stage) (string, error) {
	if _, _, err := s.InFlight(ctx, s.Relays[0]); err != nil {
		return "", err
	}
	before, err := s.coordinator(ctx)
	if err != nil {
		return "", err
	}
	if err := s.cfg.Cluster.Stop(ctx, before); err != nil {
		return "", err
	}
	s.Over()
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	after, err := s.coordinator(ctx)
	if err := errors.Join(err, s.cfg.Cluster.StartNode(ctx, before)); err != nil {
		return "", err
	}
	if before == after {
		return "", void("node %d still coordinates", after)
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.Step)
	defer cancel()
	return fmt.Sprintf("coordinator: node %d → %d", before, after), s.cfg.Cluster.WaitInSync(limited)
}

// coordinator is the node that coordinates the relay's transactions.
func (s *Stage) coordinator(ctx context.Context) (node int, err error) {
	err = s.admin(func(admin *kadm.Client) error {
		id, err := s.transactionalID(ctx)
		if err != nil {
			return err
		}
		found := admin.FindTxnCoordinators(ctx, id)
		node = int(found[id].NodeID)
		return found[id].Err
	})
	return node, err
}

// transactionalID is that of the stage's relays.
func (s *Stage) transactionalID(ctx context.Context) (string, error) {
	system, err := ask[string](ctx, s, `SELECT system_identifier::text FROM pg_control_system()`)
	return "outrider." + s.name() + "." + system, err
}

func (s *Stage) admin(f func(*kadm.Client) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Cluster.Direct()...))
	if err != nil {
		return err
	}
	defer client.Close()
	return f(kadm.NewClient(client))
}

// expireProducer lets the writers rest until the brokers have forgotten who the relay is.
func expireProducer(ctx context.Context, s *Stage) (string, error) {
	id, err := s.transactionalID(ctx)
	if err != nil {
		return "", err
	}
	s.Load.Pause()
	defer s.Load.Resume()
	if err := s.Reader.CatchUp(ctx); err != nil {
		return "", err
	}
	paused := time.Now()
	err = s.until(ctx, "the transactional id is forgotten", func(ctx context.Context) (gone bool, err error) {
		err = s.admin(func(admin *kadm.Client) error {
			known, err := admin.ListTransactions(ctx, nil, nil)
			_, still := known[id]
			gone = !still
			return err
		})
		return gone, err
	})
	if err == nil {
		err = wait(ctx, 4*time.Second-time.Since(paused)) // and the producer id
	}
	if err != nil {
		return "", err
	}
	s.Load.Resume()
	s.Over()
	return fmt.Sprintf("%s forgotten after %s", id, time.Since(paused).Round(100*time.Millisecond)), nil
}

func deleteCheckpoints(ctx context.Context, s *Stage) (string, error) {
	topic, err := s.checkpoints(ctx)
	if err != nil {
		return "", err
	}
	err = s.admin(func(admin *kadm.Client) error {
		deleted, err := admin.DeleteTopic(ctx, topic)
		return errors.Join(err, deleted.Err)
	})
	if err != nil {
		return "", fmt.Errorf("delete %s: %w", topic, err)
	}
	hint, err := s.says(ctx, s.Relays[0], "halted", "checkpoint_lost")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(hint) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "UPDATE ") {
			s.Over()
			return "halted; " + line, s.Exec(ctx, line)
		}
	}
	return "", fmt.Errorf("no statement in the hint %q", hint)
}

// wakeZombie freezes the leader when a request with rows is about to pass: they
// are in the broker's log, in a transaction that nobody ends.
func wakeZombie(ctx context.Context, s *Stage) (string, error) {
	leader, other := s.leaderAndOther(ctx)
	if other == nil {
		return "", void("nobody leads")
	}
	before, err := s.Walsender(ctx)
	if err != nil {
		return "", err
	}
	var frozen error
	sent := s.cfg.Wire.set(apiProduce, false, func(int) bool {
		frozen = leader.Freeze(ctx)
		return true
	})
	if err := s.sprung(ctx, "rows are sent", sent); err != nil {
		return "", err
	}
	if frozen != nil {
		return "", frozen
	}
	s.Over()
	after, err := s.Led(ctx, other, before)
	if err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	if err := errors.Join(s.Arrived(ctx, 100+s.Rand.IntN(500)), leader.Thaw()); err != nil {
		return "", err
	}
	evidence := fmt.Sprintf("%s frozen within a transaction; walsender %d → %d", leader.Name, before, after)
	return evidence, s.plays(ctx, leader, "standby")
}
