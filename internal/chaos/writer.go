package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// patience is how long a transaction may take before its writer gives the
// connection up; a frozen server must not hold a writer for ever.
const patience = 60 * time.Second

// writer is one client of the database. Its journal is read when it has ended.
type writer struct {
	load   *Workload
	number int
	rng    *rand.Rand
	conn   *pgx.Conn

	committed  []Row
	rolledBack []ID
	inDoubt    []Row
	evidence   Evidence

	open     []Row  // of the open transaction, in case it commits
	undone   []ID   // of the open transaction, rolled back with a savepoint
	held     []int  // keys whose business rows the open transaction has locked
	prepared string // name of the prepared transaction that is still owed, with rows in open
}

func newWriter(load *Workload, number int) *writer {
	return &writer{load: load, number: number, rng: rand.New(rand.NewPCG(load.cfg.Seed, uint64(number)))}
}

func (wr *writer) run(ctx context.Context) error {
	defer wr.hangUp()
	for ctx.Err() == nil && !wr.load.done() {
		if err := wr.connected(ctx); err != nil {
			if wait(ctx, 50*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		plan := wr.plan()
		if wr.load.pace(ctx, plan.rows()) != nil {
			return nil
		}
		if err := wr.transaction(ctx, plan); err != nil && !survivable(err) {
			return fmt.Errorf("writer %d: %w", wr.number, err)
		}
	}
	return nil
}

func (wr *writer) hangUp() {
	if wr.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = wr.conn.Close(ctx)
	}
}

// connected connects if need be, and settles first what was left prepared: its
// locks would stop every other writer.
func (wr *writer) connected(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if wr.conn == nil || wr.conn.IsClosed() {
		cfg := wr.load.conn.Copy()
		cfg.RuntimeParams["application_name"] = writersName
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		wr.conn = conn
	}
	if wr.prepared != "" {
		return wr.settlePrepared(ctx, wr.conn)
	}
	return nil
}

// transaction runs one transaction and writes down what became of it.
func (wr *writer) transaction(ctx context.Context, plan plan) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	wr.open, wr.undone = wr.open[:0], wr.undone[:0]
	wr.evidence.Transactions++
	tx, err := wr.conn.Begin(ctx)
	if err != nil {
		wr.lost(err)
		return fmt.Errorf("begin: %w", err)
	}
	if err := plan.write(ctx, wr, tx); err != nil {
		wr.letGo()
		_ = tx.Rollback(ctx)
		wr.failed(err)
		return err
	}
	wr.letGo()
	switch {
	case plan.rollback:
		wr.evidence.Rollbacks++
		err = tx.Rollback(ctx)
		wr.failed(err)
		return err
	case plan.prepare:
		return wr.prepare(ctx, tx)
	}
	wr.ended(tx.Commit(ctx))
	return nil
}

// meet notes whether another writer holds key, before its lock is asked for.
// A holder lets go before it sends its commit, so whoever is noted here has the
// lock indeed, and two transactions are at work on one key.
func (wr *writer) meet(key int) {
	me := int32(wr.number + 1)
	if holder := wr.load.holders[key].Load(); holder != 0 && holder != me {
		wr.load.meetings.Add(1)
	}
}

// hold notes that the lock of key is ours.
func (wr *writer) hold(key int) {
	wr.load.holders[key].Store(int32(wr.number + 1))
	wr.held = append(wr.held, key)
}

func (wr *writer) letGo() {
	for _, key := range wr.held {
		wr.load.holders[key].CompareAndSwap(int32(wr.number+1), 0)
	}
	wr.held = wr.held[:0]
}

// ended takes the answer to a commit. Only a server that says "rolled back"
// leaves no doubt: a commit may be done and its answer lost.
func (wr *writer) ended(err error) {
	switch {
	case err == nil:
		wr.succeeded()
	case errors.Is(err, pgx.ErrTxCommitRollback):
		wr.failed(err)
	default:
		wr.doubtful(err)
	}
}

func (wr *writer) succeeded() {
	wr.committed = append(wr.committed, wr.open...)
	wr.rolledBack = append(wr.rolledBack, wr.undone...)
	wr.load.rowsCommitted.Add(int64(len(wr.open)))
	if len(wr.open) > 0 {
		select {
		case wr.load.next <- wr.open[0].ID:
		default:
		}
	}
}

func (wr *writer) doubtful(err error) {
	wr.evidence.InDoubt++
	wr.load.doubts.Add(1)
	wr.inDoubt = append(wr.inDoubt, wr.open...)
	wr.rolledBack = append(wr.rolledBack, wr.undone...)
	wr.lost(err)
}

func (wr *writer) failed(err error) {
	for _, row := range wr.open {
		wr.rolledBack = append(wr.rolledBack, row.ID)
	}
	wr.rolledBack = append(wr.rolledBack, wr.undone...)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "40P01" {
		wr.evidence.Deadlocks++
	}
	wr.lost(err)
}

// lost counts a connection that is gone.
func (wr *writer) lost(err error) {
	if err != nil && wr.conn.IsClosed() {
		wr.evidence.Disconnects++
		wr.load.log.Debug("writer lost its connection", "writer", wr.number, "error", err)
	}
}

// survivable reports whether err is what a fault may cause. A statement that
// the server understood and refused is none: the workload itself is wrong.
func survivable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return true
	}
	switch pg.Code[:2] {
	case "08", "40", "53", "57", "58": // connection, conflict, resources, operator, system
		return true
	}
	return false
}
