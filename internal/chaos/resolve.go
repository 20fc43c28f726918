package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// writersName is the application_name of the writers.
const writersName = "chaos-writer"

// Resolve asks the table for the fate of the rows in doubt, after Run. It waits
// first until the server has no session of a writer left: a session whose
// client is gone may still be in the middle of its commit.
func (w *Workload) Resolve(ctx context.Context) error {
	return w.ask(ctx, func(conn *pgx.Conn) error {
		for {
			var sessions int
			err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
				WHERE application_name = $1 AND datname = current_database()`, writersName).Scan(&sessions)
			if err != nil {
				return fmt.Errorf("look for sessions of writers: %w", err)
			}
			if sessions == 0 {
				break
			}
			if err := wait(ctx, 10*time.Millisecond); err != nil {
				return fmt.Errorf("wait for %d sessions of writers to end: %w", sessions, err)
			}
		}
		for _, wr := range w.writers {
			if err := wr.resolve(ctx, conn); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolve settles a writer's rows in doubt by what the table has.
func (wr *writer) resolve(ctx context.Context, conn *pgx.Conn) error {
	if wr.prepared != "" {
		// The writer was stopped before it came back to what it had prepared.
		if err := wr.settlePrepared(ctx, conn); err != nil {
			return err
		}
	}
	if len(wr.inDoubt) == 0 {
		return nil
	}
	if wr.load.cfg.Stream {
		return fmt.Errorf("%d rows in doubt, and no table to ask", len(wr.inDoubt))
	}
	ids := make([][16]byte, len(wr.inDoubt))
	for i, row := range wr.inDoubt {
		ids[i] = row.ID
	}
	there, err := collectIDs(ctx, conn, `SELECT id FROM outbox.events WHERE id = ANY($1)`, ids)
	if err != nil {
		return fmt.Errorf("ask for rows in doubt: %w", err)
	}
	found := make(map[ID]struct{}, len(there))
	for _, id := range there {
		found[id] = struct{}{}
	}
	for _, row := range wr.inDoubt {
		if _, ok := found[row.ID]; ok {
			wr.committed = append(wr.committed, row)
			wr.load.rowsCommitted.Add(1)
		} else {
			wr.rolledBack = append(wr.rolledBack, row.ID)
		}
	}
	wr.inDoubt = nil
	return nil
}

// TableIDs returns the ids of all rows that stand in the outbox table; nil if it keeps none.
func (w *Workload) TableIDs(ctx context.Context) (ids []ID, err error) {
	if w.cfg.Stream {
		return nil, nil
	}
	err = w.ask(ctx, func(conn *pgx.Conn) error {
		ids, err = collectIDs(ctx, conn, `SELECT id FROM outbox.events`)
		if err != nil {
			return fmt.Errorf("read the outbox table: %w", err)
		}
		return nil
	})
	return ids, err
}

func collectIDs(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]ID, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ID, error) {
		var id [16]byte
		err := row.Scan(&id)
		return id, err
	})
}
