package chaos

import (
	"context"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// postgresFaults happen to the server, or to the network before it.
func postgresFaults() []Fault {
	return []Fault{
		{
			Name: "walsender-killed", Description: "pg_terminate_backend of the relay's walsender with rows in flight",
			strike: killWalsender,
		},
		{
			Name: "postgres-crashed", Description: "kill -9 of all processes of Postgres with rows in flight, then a start",
			strike: crashPostgres,
		},
		{
			Name: "postgres-restarted", Description: "fast stop and start of Postgres with rows in flight",
			strike: restartPostgres,
		},
		{
			Name: "postgres-reset", Description: "RST on all connections between relay and Postgres with rows in flight",
			strike: resetPostgres,
		},
		{
			Name: "postgres-black-hole", Description: "for more than two wal_sender_timeouts no byte passes between relay and Postgres, and no connection ends",
			strike: swallowPostgres,
		},
		{
			Name: "promotion", Description: "a standby that has no slot of the relay's is promoted; everybody moves there",
			Moves: true, Recovers: true, Repeats: true, strike: promote,
		},
	}
}

func killWalsender(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	rows, before, err := s.InFlight(ctx, p)
	if err != nil {
		return "", err
	}
	terminated, err := ask[bool](ctx, s, `SELECT pg_terminate_backend($1)`, before)
	if err != nil {
		return "", err
	}
	if !terminated {
		return "", void("walsender %d was gone", before)
	}
	s.Over()
	after, err := s.Led(ctx, p, before)
	return fmt.Sprintf("%d rows in flight; walsender %d → %d", rows, before, after), err
}

func crashPostgres(ctx context.Context, s *Stage) (string, error) {
	return s.downAndUp(ctx, func() error {
		if err := s.server.Crash(ctx); err != nil {
			return err
		}
		return s.server.Start(ctx)
	})
}

func restartPostgres(ctx context.Context, s *Stage) (string, error) {
	return s.downAndUp(ctx, func() error { return s.server.Restart(ctx) })
}

func (s *Stage) downAndUp(ctx context.Context, harm func() error) (string, error) {
	p := s.Relays[0]
	rows, before, err := s.InFlight(ctx, p)
	if err != nil {
		return "", err
	}
	postmaster := s.server.Pid()
	if err := harm(); err != nil {
		return "", err
	}
	s.Over()
	if postmaster == s.server.Pid() {
		return "", void("the server is still process %d", postmaster)
	}
	_, err = s.Led(ctx, p, before)
	return fmt.Sprintf("%d rows in flight; postmaster %d → %d", rows, postmaster, s.server.Pid()), err
}

func resetPostgres(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	rows, before, err := s.InFlight(ctx, p)
	if err != nil {
		return "", err
	}
	connections := s.link.Connections()
	s.link.Reset()
	s.Over()
	if connections == 0 {
		return "", void("the relay had no connection")
	}
	after, err := s.Led(ctx, p, before)
	return fmt.Sprintf("%d connections reset, %d rows in flight; walsender %d → %d", connections, rows, before, after), err
}

// swallowPostgres lasts until the server has given the walsender up, and the
// relay has had the time to give up the server.
func swallowPostgres(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	rows, before, err := s.InFlight(ctx, p)
	if err != nil {
		return "", err
	}
	committed := s.Load.Committed()
	s.link.Stall(proxy.Both)
	defer s.link.Pass()
	if err := wait(ctx, s.between(2*s.cfg.Timeout, 3*s.cfg.Timeout)); err != nil {
		return "", err
	}
	now, err := s.Walsender(ctx)
	if err != nil {
		return "", err
	}
	s.link.Pass()
	s.Over()
	if now == before {
		return "", void("walsender %d has outlived the black hole", before)
	}
	after, err := s.Led(ctx, p, before)
	return fmt.Sprintf("%d rows in flight, %d committed meanwhile; walsender %d → %d", rows, s.Load.Committed()-committed, before, after), err
}

const standbyName = "chaos_standby"

// promote moves everybody to a standby that has replayed all there is: what is
// proven is the relay, and Postgres itself may lose nothing. The slot stays
// behind with the old primary. The relay stands still meanwhile, so that there
// are rows which only the table can still give it.
func promote(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	standby, err := s.server.Standby(ctx, standbyName)
	if err != nil {
		return "", err
	}
	s.closing = append(s.closing, func() { _ = standby.Close() })
	if _, err := s.FreezeOwing(ctx, p); err != nil {
		return "", err
	}
	if err := s.Committed(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	owed, err := s.backlog(ctx)
	if err != nil {
		return "", err
	}
	if err := s.moveTo(ctx, standby, standbyName); err != nil {
		return "", err
	}
	slots := 0
	err = s.until(ctx, "the new primary answers", func(ctx context.Context) (bool, error) {
		slots, err = ask[int](ctx, s, `SELECT count(*)::int FROM pg_replication_slots WHERE slot_name = $1`, s.slot())
		return err == nil, err
	})
	if err != nil {
		return "", err
	}
	if err := p.Thaw(); err != nil {
		return "", err
	}
	s.Over()
	if slots > 0 || owed == 0 {
		return "", void("%d slots on the new primary, %d rows owed", slots, owed)
	}
	_, err = s.Led(ctx, p, 0)
	return fmt.Sprintf("no slot on the new primary, %d rows committed and not on Kafka", owed), err
}

// moveTo lets everybody go to a standby that has replayed all there is.
func (s *Stage) moveTo(ctx context.Context, standby *postgres.Server, name string) error {
	s.door.lead("")
	if err := s.replayed(ctx, name); err != nil {
		return err
	}
	if err := s.server.Stop(ctx, postgres.Immediate); err != nil {
		return err
	}
	if err := standby.Promote(ctx); err != nil {
		return err
	}
	at, err := url.Parse(standby.URL())
	if err != nil {
		return err
	}
	s.server = standby
	s.door.lead(at.Host)
	return nil
}

// replayed waits, past the closed door, until the server has no session of a
// writer left and the standby has replayed everything. Sessions are ended: one
// that waits for the lock of a prepared transaction would not notice that its
// client is gone.
func (s *Stage) replayed(ctx context.Context, name string) error {
	db, err := pgx.Connect(ctx, s.server.URL())
	if err != nil {
		return fmt.Errorf("connect to the old primary: %w", err)
	}
	defer func() { _ = db.Close(ctx) }()
	return s.until(ctx, "the standby has replayed everything", func(ctx context.Context) (bool, error) {
		var sessions int
		var behind float64
		err := db.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1`, writersName).Scan(&sessions)
		if err != nil || sessions > 0 {
			return false, err
		}
		err = db.QueryRow(ctx, `SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), min(replay_lsn)), 1)::float8
			FROM pg_stat_replication WHERE application_name = $1`, name).Scan(&behind)
		return behind <= 0, err
	})
}
