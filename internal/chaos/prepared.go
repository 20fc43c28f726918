package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// prepare ends a transaction in two phases. From here until settlePrepared has
// an answer its rows stay in open.
func (wr *writer) prepare(ctx context.Context, tx pgx.Tx) error {
	wr.evidence.Prepared++
	wr.prepared = fmt.Sprintf("chaos-%d-%d-%d", wr.load.cfg.Seed, wr.number, wr.evidence.Prepared)
	if _, err := tx.Exec(ctx, "PREPARE TRANSACTION '"+wr.prepared+"'"); err != nil {
		if !wr.conn.IsClosed() { // the server refused, and has rolled back
			wr.prepared = ""
			_ = tx.Rollback(ctx)
			wr.failed(err)
		} else {
			wr.lost(err)
		}
		return fmt.Errorf("prepare: %w", err)
	}
	// The server has left the transaction; pgx has not noticed, and its commit is
	// but a warning.
	_ = tx.Commit(ctx)
	return wr.settlePrepared(ctx, wr.conn)
}

// settlePrepared commits what was prepared. A name that does not exist was
// either never prepared or is committed already: the table knows.
func (wr *writer) settlePrepared(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "COMMIT PREPARED '"+wr.prepared+"'")
	pg, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		wr.succeeded()
	case refused && pg.Code == "42704": // undefined_object
		wr.doubtful(nil)
	default:
		wr.lost(err)
		return fmt.Errorf("commit prepared: %w", err)
	}
	wr.prepared = ""
	return nil
}
