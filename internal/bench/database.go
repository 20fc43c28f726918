package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
)

// database is the server, and the connection by which runs are prepared and
// watched. One goroutine.
type database struct {
	*pgx.Conn
	server   *postgres.Server
	systemID string
	timeline int32
	version  string
}

// openDatabase starts the distribution's build, which is compiled for speed,
// with the migrations of the outbox. Its settings are those of production where
// they touch what is measured: fsync and full-page writes are on. What would
// strike one run and not another is off: checkpoints and vacuum.
func openDatabase(ctx context.Context, dir string, log *slog.Logger) (d *database, err error) {
	server, err := postgres.Open(ctx, postgres.Options{
		Distribution: true, Fsync: true, Dir: dir, Logger: log,
		Settings: []string{"shared_buffers=256MB", "max_wal_size=16GB", "checkpoint_timeout=1h", "autovacuum=off"},
	})
	if err != nil {
		return nil, err
	}
	d = &database{server: server}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.close(ctx))
	}
	return d, nil
}

func (d *database) prepare(ctx context.Context) (err error) {
	if d.Conn, err = pgx.Connect(ctx, d.url()); err != nil {
		return err
	}
	if _, err := migrate.Up(ctx, d.Conn, migrate.Options{}); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return d.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()),
(SELECT timeline_id FROM pg_control_checkpoint()), current_setting('server_version')`).
		Scan(&d.systemID, &d.timeline, &d.version)
}

// url leads over the Unix socket.
func (d *database) url() string { return d.server.SocketURL() }

func (d *database) close(ctx context.Context) error {
	if d.Conn != nil {
		_ = d.Close(context.WithoutCancel(ctx))
	}
	return d.server.Close()
}

// baseSlot is where all copies begin.
const baseSlot = "bench_base"

// makeBase makes the slot that stands before the data to come.
func (d *database) makeBase(ctx context.Context) error { return d.makeSlot(ctx, baseSlot) }

func (d *database) makeSlot(ctx context.Context, slot string) error {
	_, err := d.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
	if err != nil {
		return fmt.Errorf("make slot %s: %w", slot, err)
	}
	return nil
}

// copyBase makes another slot at the same place.
func (d *database) copyBase(ctx context.Context, slot string) error {
	if _, err := d.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1, $2)`, baseSlot, slot); err != nil {
		return fmt.Errorf("copy slot to %s: %w", slot, err)
	}
	return nil
}

// enroll writes the progress row of a relay that has published all that lies
// before the slot, so that the relay streams from it.
func (d *database) enroll(ctx context.Context, slot string) error {
	_, err := d.Exec(ctx, `INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase, generation, base, published, base_lsn, confirmed_lsn)
SELECT slot_name, 1, $2, $3, 'streaming', 1, pg_current_snapshot(), pg_current_snapshot(), confirmed_flush_lsn, confirmed_flush_lsn
FROM pg_replication_slots WHERE slot_name = $1`, slot, d.systemID, d.timeline)
	if err != nil {
		return fmt.Errorf("write the progress row of %s: %w", slot, err)
	}
	return nil
}

// leave drops a slot whose reader was killed, and its progress row.
func (d *database) leave(ctx context.Context, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err := poll(ctx, 5*time.Millisecond, func() (free bool, err error) {
		err = d.QueryRow(ctx, `SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&free)
		return free, err
	})
	if err == nil {
		_, err = d.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, slot)
	}
	if err == nil {
		_, err = d.Exec(ctx, `DELETE FROM outbox.relays WHERE slot = $1`, slot)
	}
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", slot, err)
	}
	return nil
}

// walsender waits until somebody reads the slot, and returns the pid of the
// process that serves them. ended reports a reader that will not come.
func (d *database) walsender(ctx context.Context, slot string, ended func() error) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = poll(ctx, time.Millisecond, func() (bool, error) {
		if err := ended(); err != nil {
			return false, err
		}
		err := d.QueryRow(ctx, `SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&pid)
		return pid != 0, err
	})
	if err != nil {
		return 0, fmt.Errorf("wait for a reader of slot %s: %w", slot, err)
	}
	return pid, nil
}

// sent waits until a walsender has sent all WAL up to the data's end. It asks
// more often the nearer the end is, so that the asking costs nothing that shows.
func (d *database) sent(ctx context.Context, pid int, data *data, ended func() error) error {
	start := time.Now()
	for {
		if err := ended(); err != nil {
			return err
		}
		var part float64
		err := d.QueryRow(ctx, `SELECT coalesce((sent_lsn - $2::text::pg_lsn) / ($3::text::pg_lsn - $2::text::pg_lsn), 0)::float8
FROM pg_stat_replication WHERE pid = $1`, pid, data.begin, data.end).Scan(&part)
		if err != nil {
			return fmt.Errorf("watch the walsender: %w", err)
		}
		if part >= 1 {
			return nil
		}
		wait := 50 * time.Millisecond
		if part > 0 {
			left := time.Duration(float64(time.Since(start)) * (1 - part) / part)
			wait = min(max(left/2, 5*time.Millisecond), 500*time.Millisecond)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}
