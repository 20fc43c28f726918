package chaos

import (
	"bytes"
	"context"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// replace puts the server that next returns, which runs, in the place of the
// primary. next may read the old one, where nobody writes any more. It returns
// the rows that only the old one had: they have vanished, whatever the journal
// of the writers says.
func (s *Stage) replace(ctx context.Context, next func(old *pgx.Conn) (*postgres.Server, error)) (gone []ID, err error) {
	s.door.lead("")
	old, err := pgx.Connect(ctx, s.server.URL())
	if err != nil {
		return nil, fmt.Errorf("connect to the old server: %w", err)
	}
	defer func() { _ = old.Close(context.WithoutCancel(ctx)) }()
	if err := s.deserted(ctx, old); err != nil {
		return nil, err
	}
	had, err := collectIDs(ctx, old, `SELECT id FROM outbox.events`)
	if err != nil {
		return nil, fmt.Errorf("read the outbox of the old server: %w", err)
	}
	server, err := next(old)
	if err != nil {
		return nil, err
	}
	db, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		return nil, fmt.Errorf("connect to the new server: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	if err := forgetPrepared(ctx, db); err != nil {
		return nil, err
	}
	has, err := collectIDs(ctx, db, `SELECT id FROM outbox.events`)
	if err != nil {
		return nil, fmt.Errorf("read the outbox of the new server: %w", err)
	}
	gone = without(had, has)
	s.Load.Vanish(gone)
	if s.db != nil { // it led through the door
		_ = s.db.Close(ctx)
		s.db = nil
	}
	s.server = server
	s.door.lead(address(server))
	return gone, nil
}

// deserted waits until the server has no session of a writer left. Sessions are
// ended: one that waits for a lock would not notice that its client is gone.
func (s *Stage) deserted(ctx context.Context, db *pgx.Conn) error {
	return s.until(ctx, "no writer is left", func(ctx context.Context) (bool, error) {
		var sessions int
		err := db.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1`, writersName).Scan(&sessions)
		return sessions == 0, err
	})
}

// forgetPrepared rolls back what the old server had prepared and maybe
// committed since: who prepared it may never come back to it, and its locks
// would stop everybody.
func forgetPrepared(ctx context.Context, db *pgx.Conn) error {
	rows, err := db.Query(ctx, `SELECT gid FROM pg_prepared_xacts`)
	if err != nil {
		return fmt.Errorf("look for prepared transactions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for prepared transactions: %w", err)
	}
	for _, name := range names {
		if _, err := db.Exec(ctx, "ROLLBACK PREPARED '"+name+"'"); err != nil {
			return fmt.Errorf("roll back %s: %w", name, err)
		}
	}
	return nil
}

func without(all, some []ID) (rest []ID) {
	have := make(map[ID]struct{}, len(some))
	for _, id := range some {
		have[id] = struct{}{}
	}
	for _, id := range all {
		if _, there := have[id]; !there {
			rest = append(rest, id)
		}
	}
	return rest
}

// restore makes a server and moves the tables there, the progress row included,
// as a dump does: the trigger that stamps rows comes after the data.
func (s *Stage) restore(ctx context.Context, old *pgx.Conn) (*postgres.Server, error) {
	server, err := s.server.Fresh(ctx, "max_prepared_transactions=20")
	if err != nil {
		return nil, err
	}
	s.closing = append(s.closing, func() { _ = server.Close() })
	if err := migrateOn(ctx, server.URL()); err != nil {
		return nil, err
	}
	db, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		return nil, fmt.Errorf("connect to the new server: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	if _, err := db.Exec(ctx, `CREATE TABLE accounts (key text PRIMARY KEY, counter bigint NOT NULL); ALTER TABLE outbox.events DISABLE TRIGGER own_tx`); err != nil {
		return nil, fmt.Errorf("prepare the restore: %w", err)
	}
	for _, table := range []string{"accounts", "outbox.events", "outbox.relays"} {
		var data bytes.Buffer
		if _, err := old.PgConn().CopyTo(ctx, &data, `COPY `+table+` TO STDOUT`); err != nil {
			return nil, fmt.Errorf("dump %s: %w", table, err)
		}
		if _, err := db.PgConn().CopyFrom(ctx, &data, `COPY `+table+` FROM STDIN`); err != nil {
			return nil, fmt.Errorf("restore %s: %w", table, err)
		}
	}
	if _, err := db.Exec(ctx, `ALTER TABLE outbox.events ENABLE ALWAYS TRIGGER own_tx; SELECT setval(pg_get_serial_sequence('outbox.events', 'seq'), max(seq)) FROM outbox.events`); err != nil {
		return nil, fmt.Errorf("end the restore: %w", err)
	}
	return server, nil
}

// deafStandby is a standby that receives nothing any more.
func (s *Stage) deafStandby(ctx context.Context) (*postgres.Server, error) {
	standby, err := s.server.Standby(ctx, standbyName)
	if err != nil {
		return nil, err
	}
	s.closing = append(s.closing, func() { _ = standby.Close() })
	db, err := pgx.Connect(ctx, standby.URL())
	if err != nil {
		return nil, fmt.Errorf("connect to the standby: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	return standby, s.until(ctx, "the standby receives nothing", func(ctx context.Context) (deaf bool, err error) {
		err = db.QueryRow(ctx, `SELECT count(*) = 0 FROM pg_stat_wal_receiver`).Scan(&deaf)
		return deaf, err
	})
}

// ownWay starts p again with an address of its own for the primary.
func (s *Stage) ownWay(ctx context.Context, p *Player) (*door, error) {
	way, err := openDoor(address(s.server))
	if err != nil {
		return nil, err
	}
	s.closing = append(s.closing, way.close)
	at, err := url.Parse(s.relays)
	if err != nil {
		return nil, fmt.Errorf("the relays' URL is none") // the cause may quote a password
	}
	at.Host = way.address()
	if err := s.Stop(ctx, p); err != nil {
		return nil, err
	}
	p.Relay.Env = append(p.Relay.Env, "OUTRIDER_DATABASE_URL="+at.String())
	_, err = s.Launch(ctx, p, 0)
	return way, err
}

// address is where a server listens.
func address(server *postgres.Server) string { return fmt.Sprintf("127.0.0.1:%d", server.Port()) }

func migrateOn(ctx context.Context, database string) error {
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Owner, migrations.Publication)
	if err != nil {
		return fmt.Errorf("make the outbox: %w", err)
	}
	return execOn(ctx, database, script)
}

// execOn runs a statement past the stage's own connection.
func execOn(ctx context.Context, database, sql string, args ...any) error {
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	if _, err := db.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", shortened(sql), err)
	}
	return nil
}

// among is how many of ids were read so far.
func (r *Reader) among(ids []ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(ids) - r.missing(ids)
}

// forget drops what was seen so far. Call it while paused.
func (s *Sampler) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = nil
}
