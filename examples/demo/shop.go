package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

const (
	// services is how many order services work at once.
	services = 8
	// declinedOneIn is how often a card is declined, and the order rolled back.
	declinedOneIn = 40
	// patience is how long one transaction may take.
	patience = 10 * time.Second

	eventType = "OrderPlaced"
)

// tables are the shop's own. How many orders a customer has placed is counted
// under the lock of the customer's row, which Postgres holds until the
// transaction has ended: so the number is the order's place in commit order.
const tables = `
CREATE TABLE customers (name text PRIMARY KEY, orders bigint NOT NULL DEFAULT 0);
CREATE TABLE orders (
  customer text REFERENCES customers,
  number   bigint,
  cents    bigint NOT NULL,
  PRIMARY KEY (customer, number)
);`

func customers() []string {
	return []string{"alice", "bob", "carol", "dave", "erin", "frank"}
}

// shop takes orders the way an application does: the order and its event are
// two rows of one transaction.
type shop struct {
	pool  *pgxpool.Pool
	names []string
	busy  []atomic.Int32 // transactions at work on each of names
	tally *tally
	rate  int // orders a second
}

func openShop(ctx context.Context, pool *pgxpool.Pool, t *tally, rate int) (*shop, error) {
	names := customers()
	if _, err := pool.Exec(ctx, tables); err != nil {
		return nil, fmt.Errorf("make the shop's tables: %w", err)
	}
	if _, err := pool.Exec(ctx, `INSERT INTO customers SELECT unnest($1::text[])`, names); err != nil {
		return nil, fmt.Errorf("make the shop's customers: %w", err)
	}
	return &shop{pool: pool, names: names, busy: make([]atomic.Int32, len(names)), tally: t, rate: rate}, nil
}

// run takes orders until ctx ends, and lets the last ones come to their end.
func (s *shop) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range services {
		g.Go(func() error { return s.serve(ctx) })
	}
	return g.Wait()
}

// serve is one service. Orders come at random times, at the rate on average.
func (s *shop) serve(ctx context.Context) error {
	between := services * time.Second / time.Duration(s.rate)
	for {
		select {
		case <-time.After(rand.N(2 * between)):
		case <-ctx.Done():
			return nil
		}
		if err := s.order(context.WithoutCancel(ctx), rand.IntN(len(s.names)), 100+rand.Int64N(50_000)); err != nil {
			return fmt.Errorf("place an order: %w", err)
		}
	}
}

// order places an order of a customer, or does not, since the card is declined.
func (s *shop) order(ctx context.Context, customer int, cents int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // does nothing after a commit
	met := s.busy[customer].Add(1) > 1
	defer s.busy[customer].Add(-1)
	row, err := write(ctx, tx, s.names[customer], cents)
	if err != nil {
		return err
	}
	if rand.IntN(declinedOneIn) == 0 {
		s.tally.rollback(row.ID)
		return tx.Rollback(ctx)
	}
	s.tally.sending(row.ID)
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	s.tally.commit(row, met)
	return nil
}

// write writes the business change and, in the same transaction, its event.
func write(ctx context.Context, tx pgx.Tx, customer string, cents int64) (chaos.Row, error) {
	row := chaos.Row{Content: chaos.Content{Topic: topic, Key: customer, Keyed: true, Type: eventType}}
	err := tx.QueryRow(ctx, `UPDATE customers SET orders = orders + 1 WHERE name = $1 RETURNING orders`, customer).Scan(&row.N)
	if err != nil {
		return row, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO orders (customer, number, cents) VALUES ($1, $2, $3)`, customer, row.N, cents); err != nil {
		return row, err
	}
	payload := fmt.Sprintf(`{"customer": %q, "order": %d, "cents": %d}`, customer, row.N, cents)
	row.Value = chaos.Hash([]byte(payload))
	var id [16]byte
	err = tx.QueryRow(ctx, `INSERT INTO outbox.events (topic, key, type, payload, headers)
		VALUES ($1, $2, $3, $4, jsonb_build_object($5::text, $6::bigint)) RETURNING id`,
		topic, customer, eventType, payload, chaos.HeaderCounter, row.N).Scan(&id)
	row.ID = id
	return row, err
}
