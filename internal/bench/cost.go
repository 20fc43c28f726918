package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// The part cost asks what an event costs the database that the business runs
// on: WAL bytes, heap and index bytes, and commits, on top of a transaction that
// updates one row anyway. Each design gets a database of its own and the same
// events; an event is followed to the end of its life in that design.

// costRows is how many events each design is given: enough that what a table
// costs at its beginning is spread.
const costRows = 20_000

// design is one way to keep an outbox.
type design struct {
	name  string
	setup string // after the migrations of the outbox
	event string // written in the transaction, as a statement; %[1]s is the payload, %[2]s the key, %[3]s the headers
	relay string // what has to be done later in batches of $1; it returns how many events, and is called until it returns 0
	times int    // commits of a batch of relay
	table string // "": nothing is stored
}

const costBatch = 1000

// costResult is what one design costs by the event.
type costResult struct {
	Design  string  `json:"design"`
	WAL     float64 `json:"wal_bytes"`
	Heap    float64 `json:"heap_bytes"`
	Index   float64 `json:"index_bytes"`
	Commits float64 `json:"commits"` // that of the business is 1
}

const (
	designAppend   = "append"
	designDebezium = "Debezium's table"
)

// designs are ours, the table of Debezium's outbox event router, and an outbox
// that is polled, in the form that most of them have. All ids are UUIDs of
// version 7, to the advantage of those who take random ones.
func designs() []design {
	const ours = `INSERT INTO outbox.%s (topic, key, type, payload, headers) VALUES ('orders', %%[2]s, 'OrderPaid', %%[1]s::json, %%[3]s)`
	const debezium = `CREATE TABLE debezium (id uuid PRIMARY KEY DEFAULT outbox.uuid_v7(), aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb, headers jsonb)`
	const intoDebezium = `INSERT INTO debezium (aggregatetype, aggregateid, type, payload, headers) VALUES ('orders', %[2]s, 'OrderPaid', %[1]s::jsonb, %[3]s)`
	const purge = `WITH gone AS (DELETE FROM outbox.events WHERE seq IN (SELECT seq FROM outbox.events ORDER BY seq LIMIT $1) RETURNING 1) SELECT count(*) FROM gone`
	return []design{
		{name: designAppend, event: fmt.Sprintf(ours, "events"), table: "outbox.events"},
		{name: "append, without the index of order", setup: `DROP INDEX outbox.events_seq`, event: fmt.Sprintf(ours, "events"), table: "outbox.events"},
		{name: "append, and deleted after the retention", event: fmt.Sprintf(ours, "events"), relay: purge, times: 1, table: "outbox.events"},
		{name: "self-delete", setup: `SELECT outbox.set_mode('self-delete')`, event: fmt.Sprintf(ours, "events"), table: "outbox.events"},
		{name: "stream", setup: `SELECT outbox.set_mode('stream')`, event: fmt.Sprintf(ours, "stream"), table: "outbox.events"},
		{name: designDebezium, setup: debezium, event: intoDebezium, table: "debezium"},
		{name: designDebezium + ", insert and delete", setup: debezium, event: `WITH i AS (` + intoDebezium + ` RETURNING id) SELECT id FROM i INTO latest; DELETE FROM debezium WHERE id = latest`, table: "debezium"},
		{
			name: "polled: claim, mark, delete",
			setup: `CREATE TABLE polled (id uuid PRIMARY KEY DEFAULT outbox.uuid_v7(), topic text NOT NULL, key text, type text, payload jsonb, headers jsonb,
 status text NOT NULL DEFAULT 'new', attempts int NOT NULL DEFAULT 0, locked_until timestamptz, created_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz);
CREATE INDEX ON polled (created_at) WHERE status = 'new'; CREATE INDEX ON polled (locked_until) WHERE status = 'claimed'; CREATE INDEX ON polled (sent_at) WHERE status = 'sent'; ` + pollProcedure,
			event: `INSERT INTO polled (topic, key, type, payload, headers) VALUES ('orders', %[2]s, 'OrderPaid', %[1]s::jsonb, %[3]s)`,
			relay: `CALL poll($1, NULL)`, times: 3, table: "polled",
		},
	}
}

// pollProcedure is a batch of a polling relay: what it claims others must see,
// and what was sent must be known before it is deleted.
const pollProcedure = `CREATE PROCEDURE poll(most int, INOUT n bigint) LANGUAGE plpgsql AS $$
DECLARE batch uuid[];
BEGIN
  WITH c AS (UPDATE polled SET status = 'claimed', attempts = attempts + 1, locked_until = now() + interval '1 minute'
    WHERE id IN (SELECT id FROM polled WHERE status = 'new' ORDER BY created_at LIMIT most FOR UPDATE SKIP LOCKED) RETURNING id)
  SELECT array_agg(id) INTO batch FROM c;
  COMMIT;
  UPDATE polled SET status = 'sent', sent_at = now() WHERE id = ANY (batch);
  COMMIT;
  DELETE FROM polled WHERE id = ANY (batch);
  n := coalesce(cardinality(batch), 0);
END $$`

func (b *bench) cost(ctx context.Context) error {
	plain, err := b.costOf(ctx, design{name: "nothing", event: `NULL`})
	if err != nil {
		return err
	}
	for _, d := range designs() {
		b.say("cost of %s, %d events", d.name, costRows)
		r, err := b.costOf(ctx, d)
		if err != nil {
			return fmt.Errorf("cost of %s: %w", d.name, err)
		}
		r.WAL -= plain.WAL
		b.results.Cost = append(b.results.Cost, r)
	}
	return nil
}

// costOf runs one design in a database of its own.
func (b *bench) costOf(ctx context.Context, d design) (r *costResult, err error) {
	if _, err := b.db.Exec(ctx, `DROP DATABASE IF EXISTS cost`); err != nil {
		return nil, err
	}
	if _, err := b.db.Exec(ctx, `CREATE DATABASE cost`); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, b.db.server.DatabaseURL("cost"))
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = conn.Close(context.WithoutCancel(ctx))
		if _, e := b.db.Exec(context.WithoutCancel(ctx), `DROP DATABASE cost`); err == nil {
			err = e
		}
	}()
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Owner, migrations.Publication)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{script, d.setup, `CREATE TABLE account (id int PRIMARY KEY, n bigint) WITH (fillfactor = 50); INSERT INTO account SELECT i, 0 FROM generate_series(1, 100) i`, costLoop(d), `SET synchronous_commit = off`, `CHECKPOINT`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	return d.measure(ctx, conn)
}

// costLoop is a procedure that writes n events, each in a transaction.
func costLoop(d design) string {
	const payload, key, headers = `payload`, `key`, `'{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tenant": "acme"}'::jsonb`
	event := d.event
	if d.name != "nothing" {
		event = fmt.Sprintf(event, payload, key, headers)
	}
	return fmt.Sprintf(`CREATE PROCEDURE write_events(n int) LANGUAGE plpgsql AS $loop$
DECLARE
  latest uuid;
  key text;
  payload text;
BEGIN
  FOR i IN 1..n LOOP
    key := (i %% 1000)::text;
    payload := format('{"order": %%s, "state": "paid", "total": 12.50, "lines": "%%s"}', i, repeat(md5(i::text), 7));
    UPDATE account SET n = account.n + 1 WHERE id = i %% 100 + 1;
    %s;
    COMMIT;
  END LOOP;
END $loop$`, event)
}

func (d design) measure(ctx context.Context, conn *pgx.Conn) (*costResult, error) {
	r := &costResult{Design: d.name, Commits: 1}
	var before string
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&before); err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `CALL write_events($1)`, costRows); err != nil {
		return nil, err
	}
	for batches := 0; d.relay != ""; batches++ {
		var n int64
		if err := conn.QueryRow(ctx, d.relay, costBatch).Scan(&n); err != nil {
			return nil, err
		}
		if n == 0 {
			r.Commits += float64(batches*d.times) / costRows
			break
		}
	}
	var wal, heap, index int64
	err := conn.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint, coalesce(pg_table_size(to_regclass(nullif($2, ''))), 0), coalesce(pg_indexes_size(to_regclass(nullif($2, ''))), 0)`,
		before, d.table).Scan(&wal, &heap, &index)
	r.WAL, r.Heap, r.Index = float64(wal)/costRows, float64(heap)/costRows, float64(index)/costRows
	return r, err
}

// judgeCost holds append to the price that was set for a table that can be recovered from.
func (r *results) judgeCost() {
	var ours, theirs *costResult
	for _, c := range r.Cost {
		switch c.Design {
		case designAppend:
			ours = c
		case designDebezium:
			theirs = c
		}
	}
	if ours != nil && theirs != nil {
		r.verdict(verdict{Required: true, What: "WAL bytes of append ÷ Debezium's table", Value: ours.WAL / theirs.WAL, Limit: maxCostRatio})
	}
}

func (r *results) costTable() string {
	rows := [][]string{{"design", "WAL bytes", "heap bytes", "index bytes", "commits"}}
	for _, c := range r.Cost {
		rows = append(rows, []string{c.Design, fmt.Sprintf("%.0f", c.WAL), fmt.Sprintf("%.0f", c.Heap), fmt.Sprintf("%.0f", c.Index), fmt.Sprintf("%.3f", c.Commits)})
	}
	return markdown(rows, 1)
}
