package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// WorkloadConfig says how much is written. Zero values take the defaults.
type WorkloadConfig struct {
	DatabaseURL string
	Topics      []string // where rows go; each key goes to all of them
	Writers     int      // 6
	Rows        int      // committed rows after which the writers stop; 0: until ctx ends
	Rate        float64  // rows per second of all writers together; 0: as fast as they can
	Keys        int      // 40, at most 50: writers must meet
	Seed        uint64   // what is written; how transactions interleave is up to the server
	LargeEvery  int      // one row in so many is close to the table's limit; 10,000
	Keyed       bool     // no row lacks a key
	Stream      bool     // into the view, so that the table keeps none: a commit whose outcome is lost stays so
	Prepared    bool     // also prepared transactions; the server needs max_prepared_transactions
}

const maxKeys = 50

// Workload writes rows the way applications do, several writers at a time, and
// keeps a journal of what became of them. Writers come back after a lost
// connection; a commit whose outcome was lost with it stays in doubt until
// Resolve has asked the table.
type Workload struct {
	paused atomic.Bool
	cfg    WorkloadConfig
	conn   *pgx.ConnConfig
	log    *slog.Logger
	keys   []string
	// holders has for each key the writer, counted from 1, that holds the lock of
	// its business row and has not begun to commit.
	holders                                             []atomic.Int32
	meetings, rowsCommitted, rowsStarted, large, doubts atomic.Int64
	started                                             time.Time
	writers                                             []*writer
	vanished                                            map[ID]struct{} // see Vanish
	next                                                chan ID         // who waits in NextCommitted takes the next row
}

// NewWorkload checks cfg. It does no I/O.
func NewWorkload(cfg WorkloadConfig, log *slog.Logger) (*Workload, error) {
	if cfg.Writers == 0 {
		cfg.Writers = 6
	}
	if cfg.Keys == 0 {
		cfg.Keys = 40
	}
	if cfg.LargeEvery == 0 {
		cfg.LargeEvery = 10_000
	}
	if len(cfg.Topics) == 0 || cfg.Keys > maxKeys || cfg.Keys < 1 || cfg.Writers < 1 {
		return nil, fmt.Errorf("workload: %d topics, %d keys, %d writers: want at least one of each, and at most %d keys",
			len(cfg.Topics), cfg.Keys, cfg.Writers, maxKeys)
	}
	conn, err := pgx.ParseConfig(cfg.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the database: %w", err)
	}
	w := &Workload{cfg: cfg, conn: conn, log: log, keys: keyNames(cfg.Keys), holders: make([]atomic.Int32, cfg.Keys), next: make(chan ID)}
	for i := range cfg.Writers {
		w.writers = append(w.writers, newWriter(w, i))
	}
	return w, nil
}

// Setup makes the business table, with a row for each key.
func (w *Workload) Setup(ctx context.Context) error {
	return w.ask(ctx, func(conn *pgx.Conn) error {
		// Room in each page keeps the updates of so few rows from bloating the table.
		if _, err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS accounts (
			key text PRIMARY KEY, counter bigint NOT NULL DEFAULT 0) WITH (fillfactor = 20)`); err != nil {
			return fmt.Errorf("create the business table: %w", err)
		}
		_, err := conn.Exec(ctx, `INSERT INTO accounts (key) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, w.keys)
		if err != nil {
			return fmt.Errorf("fill the business table: %w", err)
		}
		return nil
	})
}

// Run writes until the rows are committed or ctx has ended, which it waits for
// between transactions only: no commit comes into doubt because of ctx. It
// returns an error only for what the server refused for good; lost connections
// are waited out. Run may be called once.
func (w *Workload) Run(ctx context.Context) error {
	w.started = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, wr := range w.writers {
		g.Go(func() error { return wr.run(ctx) })
	}
	return g.Wait()
}

// Pause keeps writers from beginning transactions, until Resume.
func (w *Workload) Pause() { w.paused.Store(true) }

// Resume ends a pause.
func (w *Workload) Resume() { w.paused.Store(false) }

// Committed is how many rows are known to be committed. It may be called while Run is at work.
func (w *Workload) Committed() int { return int(w.rowsCommitted.Load()) }

// InDoubt is how many transactions lost the answer to their commit so far.
func (w *Workload) InDoubt() int { return int(w.doubts.Load()) }

// WaitCommitted waits until n rows are known to be committed, or ctx has ended.
func (w *Workload) WaitCommitted(ctx context.Context, n int) error {
	for w.Committed() < n {
		if err := wait(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for %d rows to be committed: %w", n, context.Cause(ctx))
		}
	}
	return nil
}

// NextCommitted waits for a transaction whose commit is acknowledged from now
// on, and returns one of its rows.
func (w *Workload) NextCommitted(ctx context.Context) (ID, error) {
	select {
	case id := <-w.next:
		return id, nil
	case <-ctx.Done():
		return ID{}, fmt.Errorf("wait for a commit: %w", context.Cause(ctx))
	}
}

// done reports whether enough was written.
func (w *Workload) done() bool {
	return w.cfg.Rows > 0 && w.Committed() >= w.cfg.Rows
}

// pace waits until n more rows are due.
func (w *Workload) pace(ctx context.Context, n int) error {
	before := w.rowsStarted.Add(int64(n)) - int64(n)
	if w.cfg.Rate <= 0 {
		return ctx.Err()
	}
	for w.paused.Load() {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	due := w.started.Add(time.Duration(float64(before) / w.cfg.Rate * float64(time.Second)))
	return wait(ctx, time.Until(due))
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Outcome is what the writers know after Run and Resolve.
type Outcome struct {
	Committed  []Row
	RolledBack []ID
	Vanished   []ID // in neither list above; see Workload.Vanish
	Meetings   int  // how often a writer came to a key that another one held
	Evidence   Evidence
}

// Evidence counts what the workload did, so that a run can show that it
// contained what it claims.
type Evidence struct {
	Transactions, Rollbacks, Savepoints, Copies, Prepared, Deadlocks int
	Tombstones, Binary, Empty, Large, Unkeyed, ContextHeaders        int // rows, committed or not
	Disconnects, InDoubt                                             int // connections lost; transactions whose commit was
}

// Outcome gathers the journals. Call it after Run, and after Resolve, without
// which the rows in doubt are in neither list.
func (w *Workload) Outcome() Outcome {
	out := Outcome{Meetings: int(w.meetings.Load())}
	for _, wr := range w.writers {
		out.Committed = append(out.Committed, wr.committed...)
		out.RolledBack = append(out.RolledBack, wr.rolledBack...)
		out.Evidence.add(wr.evidence)
	}
	for id := range w.vanished {
		out.Vanished = append(out.Vanished, id)
	}
	out.Committed = slices.DeleteFunc(out.Committed, func(row Row) bool { _, gone := w.vanished[row.ID]; return gone })
	out.RolledBack = slices.DeleteFunc(out.RolledBack, func(id ID) bool { _, gone := w.vanished[id]; return gone })
	return out
}

// Vanish says of rows that the database had and has lost: an older copy of it
// has taken its place. To the database, which is what counts, they were never
// committed. Call it from the goroutine that calls Outcome.
func (w *Workload) Vanish(ids []ID) {
	if w.vanished == nil {
		w.vanished = make(map[ID]struct{}, len(ids))
	}
	for _, id := range ids {
		w.vanished[id] = struct{}{}
	}
}

func (e *Evidence) add(o Evidence) {
	e.Transactions += o.Transactions
	e.Rollbacks += o.Rollbacks
	e.Savepoints += o.Savepoints
	e.Copies += o.Copies
	e.Prepared += o.Prepared
	e.Deadlocks += o.Deadlocks
	e.Tombstones += o.Tombstones
	e.Binary += o.Binary
	e.Empty += o.Empty
	e.Large += o.Large
	e.Unkeyed += o.Unkeyed
	e.ContextHeaders += o.ContextHeaders
	e.Disconnects += o.Disconnects
	e.InDoubt += o.InDoubt
}

// ask runs f on a connection of its own.
func (w *Workload) ask(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, w.conn.Copy())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return errors.Join(f(conn), conn.Close(ctx))
}
