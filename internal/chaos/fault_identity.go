package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// identityFaults lead the relay to a database that is not the one it knows.
func identityFaults() []Fault {
	return []Fault{
		{
			Name: "snapshot-rolled-back", Description: "a copy of the storage takes the place of the database under the relay, which has published rows that the copy lacks; the relay halts, and what it says is done",
			Moves: true, Repeats: true, strike: rollBack,
		},
		{
			Name: "dump-restored", Description: "the data moves to a new server by COPY, with rows that were not published; the relay halts, and is told to republish",
			Moves: true, Recovers: true, Repeats: true, strike: restoreDump,
		},
		{
			Name: "stale-primary", Description: "a standby that lacks rows on Kafka is promoted; later the relay's address leads to the old primary, which lives and is written to, and back",
			Moves: true, Recovers: true, Repeats: true, strike: goStale,
		},
		{
			Name: "one-slot-name-in-two-databases", Description: "a relay of the same name starts in another database of the server, then the first is killed; the other takes the name that is proposed",
			strike: shareSlotName,
		},
	}
}

func rollBack(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	snapshot, err := s.server.Clone(ctx)
	if err != nil {
		return "", err
	}
	s.closing = append(s.closing, func() { _ = snapshot.Close() })
	// Set back by less than the row tells, nothing halts, and nothing is lost:
	// that is another test (TestDatabaseSetBackByAMoment).
	writes, err := ask[int](ctx, s, `SELECT write_seq::int FROM outbox.relays WHERE slot = $1`, s.slot())
	if err != nil {
		return "", err
	}
	err = s.until(ctx, "the row is written", func(ctx context.Context) (bool, error) {
		now, err := ask[int](ctx, s, `SELECT write_seq::int FROM outbox.relays WHERE slot = $1`, s.slot())
		return now > writes+1, err
	})
	if err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, 200+s.Rand.IntN(800)); err != nil {
		return "", err
	}
	gone, err := s.replace(ctx, func(*pgx.Conn) (*postgres.Server, error) {
		// The copy repeats positions: nothing that was seen so far compares with what will be.
		s.sampler.Pause()
		s.sampler.forget()
		defer s.sampler.Resume()
		return snapshot, errors.Join(s.server.Crash(ctx), snapshot.Start(ctx))
	})
	if err != nil {
		return "", err
	}
	hint, err := s.says(ctx, p, "halted", "database_rewound")
	if err != nil {
		return "", err
	}
	_, onPurpose, _ := strings.Cut(hint, "\nor: ")
	_, sql, found := strings.Cut(onPurpose, "\n")
	if !found {
		return "", fmt.Errorf("no statement in the hint %q", hint)
	}
	if err := errors.Join(s.Stop(ctx, p), s.Exec(ctx, sql)); err != nil {
		return "", err
	}
	s.Over()
	_, err = s.Launch(ctx, p, 0)
	return s.phantoms(gone, err)
}

// restoreDump does what pg_dump and a restore do to the relay: another system
// identifier, no slot, and rows whose transaction ids mean nothing.
func restoreDump(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	owed, err := s.FreezeOwing(ctx, p)
	if err != nil {
		return "", err
	}
	gone, err := s.replace(ctx, func(old *pgx.Conn) (*postgres.Server, error) { return s.restore(ctx, old) })
	if err != nil {
		return "", err
	}
	if len(gone) > 0 {
		return "", fmt.Errorf("the dump lacks %d rows", len(gone))
	}
	if err := p.Thaw(); err != nil {
		return "", err
	}
	hint, err := s.says(ctx, p, "halted", "other_system")
	if err != nil {
		return "", err
	}
	answer := regexp.MustCompile(`OUTRIDER_ACCEPT_IDENTITY=\w+:republish`).FindString(hint)
	if answer == "" {
		return "", fmt.Errorf("no answer in the hint %q", hint)
	}
	if err := s.Stop(ctx, p); err != nil {
		return "", err
	}
	p.Relay.Env = append(p.Relay.Env, answer)
	s.Over()
	_, err = s.Launch(ctx, p, 0)
	return fmt.Sprintf("halted as other_system with %d rows committed and not on Kafka", owed), err
}

// goStale gives the relay an address of its own: writers know the new primary.
func goStale(ctx context.Context, s *Stage) (string, error) {
	p, old := s.Relays[0], s.server
	way, err := s.ownWay(ctx, p)
	if err != nil {
		return "", err
	}
	standby, err := s.deafStandby(ctx)
	if err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	owed, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, owed+100); err != nil { // all that lay before the new rows, at least
		return "", err
	}
	way.lead("")
	gone, err := s.replace(ctx, func(*pgx.Conn) (*postgres.Server, error) {
		err := standby.Promote(ctx)
		return standby, err
	})
	if err != nil {
		return "", err
	}
	way.lead(address(standby))
	if _, err := s.Led(ctx, p, 0); err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	// On Kafka these would be rows that nobody committed.
	err = execOn(ctx, old.URL(), `INSERT INTO outbox.events (topic, key, payload) SELECT $1, 'account-00', '{}' FROM generate_series(1, 50)`, s.topic)
	if err != nil {
		return "", err
	}
	way.lead(address(old))
	if _, err := s.says(ctx, p, "waiting", "timeline"); err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	if _, err := s.says(ctx, p, "waiting", "timeline"); err != nil {
		return "", err
	}
	way.lead(address(standby))
	s.Over()
	_, err = s.Led(ctx, p, 0)
	return s.phantoms(gone, err)
}

// shareSlotName: slots are named per server, so one name serves one database.
func shareSlotName(ctx context.Context, s *Stage) (string, error) {
	const name, rows = "neighbour", 100
	if err := s.Exec(ctx, `CREATE DATABASE `+name); err != nil {
		return "", err
	}
	at, err := url.Parse(s.relays)
	if err != nil {
		return "", errors.New("the relays' URL is none") // the cause may quote a password
	}
	at.Path = "/" + name
	if err := migrateOn(ctx, at.String()); err != nil {
		return "", err
	}
	second := s.AddRelay()
	second.Relay.Env = append(second.Relay.Env, "OUTRIDER_DATABASE_URL="+at.String())
	if err := second.Start(); err != nil {
		return "", err
	}
	hint, err := s.says(ctx, second, "halted", "slot_not_ours")
	if err != nil {
		return "", err
	}
	proposed := regexp.MustCompile(`OUTRIDER_NAME=\w+`).FindString(hint)
	if proposed == "" {
		return "", fmt.Errorf("no name in the hint %q", hint)
	}
	evidence, err := killRelay(ctx, s)
	if err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	if _, err := s.says(ctx, second, "halted", "slot_not_ours"); err != nil {
		return "", err
	}
	if err := s.Stop(ctx, second); err != nil {
		return "", err
	}
	second.Relay.Env = append(second.Relay.Env, proposed)
	if err := errors.Join(second.Start(), s.Leads(ctx, second)); err != nil {
		return "", err
	}
	err = s.arriveElsewhere(ctx, at.String(), rows)
	return fmt.Sprintf("slot_not_ours in the other database; %s; then %d rows of the other database under %s", evidence, rows, proposed), err
}

// arriveElsewhere writes rows into the outbox of another database, and waits
// until they are on a topic of their own.
func (s *Stage) arriveElsewhere(ctx context.Context, database string, rows int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Cluster.Direct()...))
	if err != nil {
		return fmt.Errorf("make a topic: %w", err)
	}
	defer client.Close()
	topic := s.topic + "-elsewhere"
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, -1, nil, topic); err != nil {
		return fmt.Errorf("make topic %s: %w", topic, err)
	}
	reader, err := NewReader(ReaderConfig{Brokers: s.cfg.Cluster.Direct(), Topics: []string{topic}})
	if err != nil {
		return err
	}
	s.background(ctx, func(ctx context.Context) { _ = reader.Run(ctx) })
	err = execOn(ctx, database, `INSERT INTO outbox.events (topic, key, payload) SELECT $1, 'k', '{}' FROM generate_series(1, $2::int)`, topic, rows)
	if err != nil {
		return err
	}
	return s.within(ctx, func(ctx context.Context) error { return reader.WaitRows(ctx, rows) })
}

// says waits until p has the role for that reason, and returns its hint.
func (s *Stage) says(ctx context.Context, p *Player, role, reason string) (hint string, err error) {
	err = s.until(ctx, p.Name+" is "+role+": "+reason, func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, &endedError{p.Name, p.Err()}
		}
		body, err := p.Get(ctx, "/status")
		if err != nil {
			return false, err
		}
		var status struct{ Role, Reason, Hint string }
		if err := json.Unmarshal(body, &status); err != nil {
			return false, fmt.Errorf("read /status: %w", err)
		}
		hint = status.Hint
		if status.Role != role || status.Reason != reason {
			return false, fmt.Errorf("%s is %s %s", p.Name, status.Role, status.Reason)
		}
		return true, nil
	})
	return hint, err
}

// phantoms is the evidence of a fault that made rows vanish.
func (s *Stage) phantoms(gone []ID, err error) (string, error) {
	delivered := s.Reader.among(gone)
	if err == nil && delivered == 0 {
		err = void("none of %d rows that vanished is on Kafka", len(gone))
	}
	return fmt.Sprintf("%d rows vanished, %d of them are on Kafka", len(gone), delivered), err
}
