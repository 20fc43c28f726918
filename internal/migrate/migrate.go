// Package migrate applies the SQL of package outbox/migrations to a database
// and says how far a database is.
//
// It promises that [Up] can be run at any time and by several processes at
// once; that each file is applied as a whole or not at all, and recorded in the
// same transaction; that nothing is applied on top of a file that was changed
// after its release; and that [Check] looks at the objects themselves, since a
// record only says what was once done.
//
// It does not create roles, does not touch settings of the server, does not
// make the replication slot, and drops nothing. It works on one connection that
// leads to the server itself: a session lock does not survive a pooler that
// hands out connections by transaction.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Options say what is to be applied.
type Options struct {
	Names migrations.Names
	Roles []migrations.Role      // to be granted; each time, since a grant leaves no record
	Only  []migrations.Privilege // only migrations of these; none: all
}

// Report is what [Up] did.
type Report struct {
	Applied  []string // names of migrations, in order; a migration for a role has the role beside it
	Warnings []string // what will keep a relay from working although the migrations are in
}

// lockTimeout is how long a statement waits for a lock. On a table that is in
// use every writer would queue behind a statement that waits longer.
const lockTimeout = 10 * time.Second

// Up brings the database to the newest version. It waits for another Up on the
// same schema. Errors: [ErrDrifted], [PrivilegeError], or what the server said;
// files before the failing one stay applied.
func Up(ctx context.Context, conn *pgx.Conn, o Options) (report Report, err error) {
	if o.Names, err = o.Names.Normalize(); err != nil {
		return report, err
	}
	unlock, err := lock(ctx, conn, o.Names.Schema)
	if err != nil {
		return report, err
	}
	defer unlock()
	status, err := Check(ctx, conn, o.Names)
	if err != nil {
		return report, err
	}
	if err := status.drift(); err != nil {
		return report, err
	}
	for _, step := range status.Steps {
		if !step.Wanted(o.Only) {
			continue
		}
		applied, err := applyStep(ctx, conn, o, step)
		report.Applied = append(report.Applied, applied...)
		if err != nil {
			return report, err
		}
	}
	report.Warnings, err = warnings(ctx, conn, o)
	return report, err
}

func applyStep(ctx context.Context, conn *pgx.Conn, o Options, step Step) (applied []string, err error) {
	if !step.ForRole() {
		if step.State == Applied {
			return nil, nil
		}
		text, err := step.Render(o.Names)
		if err != nil {
			return nil, err
		}
		record, err := step.Record(o.Names)
		if err != nil {
			return nil, err
		}
		if err := apply(ctx, conn, text+record); err != nil {
			return nil, explain(ctx, conn, step.Migration, o.Names, err)
		}
		return []string{step.String()}, nil
	}
	for _, role := range o.Roles {
		if role.Privilege != step.Privilege {
			continue
		}
		text, err := step.RenderRole(o.Names, role)
		if err != nil {
			return applied, err
		}
		if err := apply(ctx, conn, text); err != nil {
			return applied, explain(ctx, conn, step.Migration, o.Names, err)
		}
		applied = append(applied, step.String()+" "+role.Name)
	}
	return applied, nil
}

// apply runs text in a transaction. Without arguments pgx uses the simple
// protocol, which takes several statements.
func apply(ctx context.Context, conn *pgx.Conn, text string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("%s\nSET LOCAL lock_timeout = %d;\n%s", migrations.SearchPath, lockTimeout.Milliseconds(), text))
		return err
	})
}

// lockKey is one lock a schema. It is not the relay's, which must never wait here.
const lockKey = `hashtextextended('outrider migrate ' || $1, 0)`

// lock takes the session advisory lock and returns what gives it back. Each
// file has a transaction of its own, so a lock of the transaction would not do.
func lock(ctx context.Context, conn *pgx.Conn, schema string) (unlock func(), err error) {
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(`+lockKey+`)`, schema); err != nil {
		return nil, fmt.Errorf("wait for another migration: %w", err)
	}
	return func() {
		// A connection that cannot be told is gone, and its lock with it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock(`+lockKey+`)`, schema); err != nil {
			_ = conn.Close(ctx)
		}
	}, nil
}

// warnings names what a migration cannot change: objects that somebody altered,
// and the server. Logical decoding needs wal_level = logical, which needs a restart.
func warnings(ctx context.Context, conn *pgx.Conn, o Options) (list []string, err error) {
	status, err := Check(ctx, conn, o.Names)
	if err != nil {
		return nil, err
	}
	for _, step := range status.Steps {
		list = append(list, step.Problems...)
	}
	var level string
	if err := conn.QueryRow(ctx, `SHOW wal_level`).Scan(&level); err != nil {
		return nil, fmt.Errorf("ask for wal_level: %w", err)
	}
	if level != "logical" {
		list = append(list, fmt.Sprintf("wal_level is %s; a relay needs logical: "+
			"ALTER SYSTEM SET wal_level = 'logical'; and restart the server", level))
	}
	return list, nil
}

// ErrDrifted means that a migration was recorded with another checksum than the
// one of this program: the file was edited, or the record was.
var ErrDrifted = errors.New("recorded migration differs from this program's")
