package outbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/outrider-cdc/outrider/outbox/internal/statement"
)

// DefaultMaxBytes is the limit of the table's constraint row_size, in octets.
const DefaultMaxBytes = 950000

// Executor runs a statement in an open transaction: *sql.Tx, *sqlx.Tx, the Tx
// inside a bun.Tx, ent's Tx, gorm's Statement.ConnPool, the DBTX of sqlc. For
// pgx there is [Pgx]. It must pass parameters $1, $2, … on to the server.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Writer writes messages with options. The zero Writer is ready for use. Its
// fields must not be changed once it is in use; then any number of goroutines
// may use it, each with a transaction of its own.
type Writer struct {
	// Schema that holds the outbox; "" is "outbox".
	Schema string

	// Table to write to; "" is "events". A view with the same columns will do.
	Table string

	// Codec for payloads; nil is json.Marshal.
	Codec Codec

	// MaxBytes is the most that one message may have of payload, key, type and
	// headers together, in octets; 0 is DefaultMaxBytes. It is meant for topics
	// that take less; more helps only if the table's constraint was changed.
	// Headers that the transaction adds (SET LOCAL) are not counted here.
	MaxBytes int

	// ContextHeaders, called once a call, returns headers for every message of
	// it, such as traceparent. Those of [WithHeaders] win over them. May be nil.
	ContextHeaders func(context.Context) map[string]string

	// AllowAutocommit takes an executor as it is and does not look for an open
	// transaction. Without one the messages are committed at once, whatever
	// becomes of the business change; more than 64 MiB of them in several parts.
	AllowAutocommit bool
}

// Write is [Writer.Write] of the zero Writer.
func Write(ctx context.Context, tx Executor, msgs ...Message) ([]ID, error) {
	return (&Writer{}).Write(ctx, tx, msgs...)
}

// Write writes msgs in the transaction tx and returns their ids, in the order
// of the arguments, which is also the order in which messages of one topic and
// key will arrive. It is one round trip, or one for each 64 MiB.
//
// tx counts as a transaction if it has the methods Commit and Rollback. Any
// other executor (a *sql.Conn, a wrapper) costs one more round trip, in which
// the server is asked for an open transaction; without one, and for a *sql.DB at
// once, the error is [ErrNoTransaction]. See AllowAutocommit.
//
// Other errors are an [*Error] for a message that is refused, one of the Err
// variables, or the driver's error, wrapped. With an error nothing is to be
// committed: if it came from the server, the transaction cannot go on.
func (w *Writer) Write(ctx context.Context, tx Executor, msgs ...Message) ([]ID, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	if _, pool := tx.(interface{ Stats() sql.DBStats }); pool && !w.AllowAutocommit {
		return nil, fmt.Errorf("outbox: %w", ErrNoTransaction) // *sql.DB and what embeds one
	}
	b, err := w.prepare(ctx, msgs)
	if err != nil {
		return nil, err
	}
	if err := w.requireTransaction(ctx, tx); err != nil {
		return nil, err
	}
	into := statement.Into{Schema: orDefault(w.Schema, "outbox"), Table: orDefault(w.Table, "events")}
	for first := 0; first < len(b.rows); {
		count := statement.Fit(b.rows[first:])
		query, args := into.Insert(b.rows[first : first+count])
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return nil, refused(err, first, count, within(b.given, first, count))
		}
		first += count
	}
	return b.ids, nil
}

// requireTransaction asks the server where the type of tx does not tell.
// PgBouncer and drivers can hide the state of a session, and no function of
// Postgres shows it, but LOCK TABLE is refused outside a transaction block. The
// weakest lock on a catalog that everybody may read stands in nobody's way.
func (w *Writer) requireTransaction(ctx context.Context, tx Executor) error {
	if w.AllowAutocommit || isTransaction(tx) {
		return nil
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE pg_catalog.pg_am IN ACCESS SHARE MODE")
	switch {
	case err == nil:
		return nil
	case sqlState(err) == "25P01":
		return fmt.Errorf("outbox: %w: %w", ErrNoTransaction, err)
	}
	return fmt.Errorf("outbox: look for an open transaction: %w", err)
}

func isTransaction(tx any) bool {
	switch tx := tx.(type) {
	case interface {
		Commit() error
		Rollback() error
	}:
		return true
	case interface {
		Commit(context.Context) error
		Rollback(context.Context) error
	}:
		return true
	case wrapped:
		return isTransaction(tx.unwrap())
	}
	return false
}

func (w *Writer) maxBytes() int {
	if w.MaxBytes > 0 {
		return w.MaxBytes
	}
	return DefaultMaxBytes
}

func orDefault(name, or string) string {
	if name == "" {
		return or
	}
	return name
}

// within returns those of indexes that lie in the count messages from first on.
func within(indexes []int, first, count int) []int {
	var in []int
	for _, i := range indexes {
		if first <= i && i < first+count {
			in = append(in, i)
		}
	}
	return in
}
