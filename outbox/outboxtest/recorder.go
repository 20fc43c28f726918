package outboxtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/internal/statement"
)

// Recorder stands for a transaction in tests without a database: it keeps the
// messages that are written through it, by outbox.Write or outbox.WritePgx. The
// zero Recorder is ready for use, by any number of goroutines.
//
// It knows nothing of a table: an id that was written before is written again,
// and SET LOCAL adds no headers. Other statements are an error; embed it in a
// fake of your own for those.
type Recorder struct {
	// Err, if not nil, is what each write fails with.
	Err error

	mu   sync.Mutex
	msgs []outbox.Message
}

// Messages returns what was written, in order, as [Written] does.
func (r *Recorder) Messages() []outbox.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]outbox.Message(nil), r.msgs...)
}

// ExecContext records the messages of a statement of package outbox.
func (r *Recorder) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.Err != nil {
		return nil, r.Err
	}
	rows, err := statement.Rows(query, args)
	if err != nil {
		return nil, fmt.Errorf("outboxtest: recorder: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		m, err := message(row)
		if err != nil {
			return nil, fmt.Errorf("outboxtest: recorder: %w", err)
		}
		r.msgs = append(r.msgs, m)
	}
	return driver.RowsAffected(len(rows)), nil
}

// Exec is ExecContext for outbox.WritePgx.
func (r *Recorder) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return r.ExecContext(ctx, query, args...)
}

// Commit does nothing. It makes the Recorder a transaction.
func (r *Recorder) Commit() error { return nil }

// Rollback forgets what was written.
func (r *Recorder) Rollback() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = nil
	return nil
}
