package relay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// counted are writers of events whose values count up in each key, so that the
// counters in the database say what must arrive.
type counted struct {
	w       *world
	sink    *memory
	stop    context.CancelFunc
	writers sync.WaitGroup
	errs    [4]error
}

func startCounted(w *world, sink *memory) *counted {
	w.t.Helper()
	w.exec(`CREATE TABLE counters (key int PRIMARY KEY, n int NOT NULL); INSERT INTO counters SELECT k, 0 FROM generate_series(0, 4) k`)
	c := &counted{w: w, sink: sink}
	ctx, stop := context.WithCancel(w.t.Context())
	c.stop = stop
	for i := range c.errs {
		db := postgres.Connect(w.t, w.pg.URL())
		c.writers.Go(func() { c.errs[i] = writeCounted(ctx, db, uint64(i)) })
	}
	return c
}

// arrive waits until some hundred more have come.
func (c *counted) arrive() {
	c.w.t.Helper()
	n := len(c.sink.events())
	await(c.w.t, func() error {
		if got := len(c.sink.events()); got < n+300 {
			return fmt.Errorf("%d of 300 came", got-n)
		}
		return nil
	})
}

// end waits until all has come that was committed, in its order.
func (c *counted) end() {
	c.w.t.Helper()
	c.stop()
	c.writers.Wait()
	if err := errors.Join(c.errs[:]...); err != nil {
		c.w.t.Fatal(err)
	}
	want := map[string]int{}
	for key := range 5 {
		n := 0
		if _, err := fmt.Sscan(c.w.text(`SELECT n::text FROM counters WHERE key = $1`, key), &n); err != nil {
			c.w.t.Fatal(err)
		}
		want[fmt.Sprint("k", key)] = n
	}
	await(c.w.t, func() error {
		if diff := cmp.Diff(want, inKeyOrder(c.w.t, c.sink.events())); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// inKeyOrder is how far the events of each key have come; the first ones must count from 1.
func inKeyOrder(t *testing.T, events []event) map[string]int {
	t.Helper()
	at := map[string]int{}
	for _, e := range events {
		n := 0
		if _, err := fmt.Sscan(e.value, &n); err != nil || n < 1 {
			t.Fatalf("event %+v", e)
		}
		if n > at[e.key]+1 {
			t.Fatalf("key %s: %d came after %d", e.key, n, at[e.key])
		}
		at[e.key] = max(at[e.key], n)
	}
	return at
}

// ways to publish the n-th event of a key.
var ways = []string{
	`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', $1, $2::text::json)`,
	`INSERT INTO outbox.stream (topic, key, payload, id, headers) VALUES ('t', $1, $2::text::json, NULL, NULL) RETURNING id`,
	`SELECT outbox.publish('t', $1, $2::text)`,
	`SELECT outbox.publish_many(json_build_array(json_build_object('topic', 't', 'key', $1::text, 'payload', $2::text::json)))`,
}

// writeCounted writes until ctx ends: transactions of several events, some with
// a savepoint that is rolled back, some rolled back altogether. n of a key grows
// under its lock, so that it tells the commit order. -1 was never committed.
func writeCounted(ctx context.Context, db *pgx.Conn, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 0))
	for ctx.Err() == nil {
		tx, err := db.Begin(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		key := random.IntN(5)
		for range 1 + random.IntN(4) {
			if random.IntN(4) == 0 {
				if _, err := tx.Exec(context.WithoutCancel(ctx), `SAVEPOINT s; `+strings.NewReplacer("$1", "'gone'", "$2", "'-1'").Replace(ways[random.IntN(len(ways))])+`; ROLLBACK TO s`); err != nil {
					return err
				}
			}
			var n int
			if err := tx.QueryRow(context.WithoutCancel(ctx), `UPDATE counters SET n = n + 1 WHERE key = $1 RETURNING n`, key).Scan(&n); err != nil {
				return err
			}
			if _, err := tx.Exec(context.WithoutCancel(ctx), ways[random.IntN(len(ways))], fmt.Sprint("k", key), fmt.Sprint(n)); err != nil {
				return err
			}
		}
		if random.IntN(8) == 0 {
			err = tx.Rollback(context.WithoutCancel(ctx))
		} else {
			err = tx.Commit(context.WithoutCancel(ctx))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
