package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// The rows: a payload of payloadSize bytes of JSON which compresses no better
// than hexadecimal noise does, one of so many keys, a type, no headers of their own.
const (
	payloadSize = 100
	keys        = 10_000
	tableTopic  = "orders"
	eventType   = "order.placed"
)

// selectRow are the columns of row n, an integer; 10000 is keys.
const selectRow = `'` + tableTopic + `', 'order-' || n % 10000, '` + eventType + `',
 ('{"order":"' || lpad(n::text, 10, '0') || '","text":"' || md5(n::text) || md5((-n)::text) || 'cafe"}')::json`

// data is what lies between two positions of the WAL.
type data struct {
	part       string
	rows, size int    // size: rows of a transaction
	begin, end string // LSN
}

// load makes the base slot and, behind it, rows in transactions of size.
// Commits do not wait for the disk: they are read only when all are there. Id
// and headers are given, of the form that the table's defaults would give them
// in five times the time.
func (d *database) load(ctx context.Context, part string, rows, size int) (*data, error) {
	if err := d.makeBase(ctx); err != nil {
		return nil, err
	}
	l := &data{part: part, rows: rows, size: size}
	if err := d.position(ctx, &l.begin); err != nil {
		return nil, err
	}
	_, err := d.Exec(ctx, fmt.Sprintf(`DO $do$
BEGIN
  SET synchronous_commit = off;
  FOR low IN 0 .. %d BY %d LOOP
    INSERT INTO outbox.events (id, headers, topic, key, type, payload)
    SELECT ('01999999-9999-7999-8999-' || lpad(to_hex(n), 12, '0'))::uuid, NULL, %s FROM generate_series(low, low + %d) AS n;
    COMMIT;
  END LOOP;
  SET synchronous_commit = on;
END
$do$`, rows-1, size, selectRow, size-1))
	if err != nil {
		return nil, fmt.Errorf("load %d rows: %w", rows, err)
	}
	if err := d.position(ctx, &l.end); err != nil {
		return nil, err
	}
	_, err = d.Exec(ctx, `CHECKPOINT`) // its own records come after the end, so that a walsender passes it
	return l, err
}

// position reads where the next record of the WAL will stand.
func (d *database) position(ctx context.Context, lsn *string) error {
	return d.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(lsn)
}

// unload forgets the data and its base slot.
func (d *database) unload(ctx context.Context) error {
	if err := d.leave(ctx, baseSlot); err != nil {
		return err
	}
	_, err := d.Exec(ctx, `TRUNCATE outbox.events`)
	return err
}

// writers is how many connections share the rate: one commit at a time would
// let a slow one delay those behind it.
const writers = 4

// write commits rows at a rate of transactions a second, each at its time, and
// returns the rate that was reached.
func (b *bench) write(ctx context.Context, rows, rate int) (float64, error) {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range writers {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, b.db.url())
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			for n := i; n < rows; n += writers {
				if err := pauseUntil(ctx, start.Add(time.Duration(n)*time.Second/time.Duration(rate))); err != nil {
					return err
				}
				if _, err := conn.Exec(ctx, `INSERT INTO outbox.events (topic, key, type, payload) SELECT `+selectRow+` FROM (SELECT $1::int AS n) AS one`, n); err != nil {
					return fmt.Errorf("write at a steady rate: %w", err)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(rows) / time.Since(start).Seconds(), err
}
