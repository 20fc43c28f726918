package outbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// PgxTx is what a pgx.Tx looks like without importing pgx: R is
// pgconn.CommandTag, which the compiler infers. *pgx.Conn and *pgxpool.Pool look
// so, too; they must have a transaction open, as [Writer.Write] says.
type PgxTx[R any] interface {
	Exec(ctx context.Context, sql string, args ...any) (R, error)
}

// WritePgx is [Write] for a pgx.Tx. For a [Writer] with options say
// w.Write(ctx, outbox.Pgx(tx), …).
func WritePgx[R any](ctx context.Context, tx PgxTx[R], msgs ...Message) ([]ID, error) {
	return Write(ctx, Pgx(tx), msgs...)
}

// Pgx makes an [Executor] of a pgx.Tx. Any QueryExecMode will do.
func Pgx[R any](tx PgxTx[R]) Executor { return pgxExecutor[R]{tx} }

type pgxExecutor[R any] struct{ tx PgxTx[R] }

func (e pgxExecutor[R]) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if _, err := e.tx.Exec(ctx, query, args...); err != nil {
		return nil, err
	}
	return driver.ResultNoRows, nil
}

// wrapped is an executor whose inner value says whether it is a transaction.
type wrapped interface{ unwrap() any }

func (e pgxExecutor[R]) unwrap() any { return e.tx }
