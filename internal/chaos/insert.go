package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// insert writes the business change and the event in one statement. A null id
// is what an ORM sends that names all columns; the table fills it in.
func (wr *writer) insert(ctx context.Context, tx pgx.Tx, e *event, key int) error {
	headers, err := e.headersWith(0)
	if err != nil {
		return err
	}
	var id [16]byte
	var n int64
	if key < 0 {
		err = tx.QueryRow(ctx, `INSERT INTO `+wr.into()+` (id, topic, type, payload, payload_bytes, headers)
			VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
			e.columnID(), e.row.Topic, e.columnType(), e.payload, e.bytes, headers).Scan(&id)
	} else {
		err = tx.QueryRow(ctx, `WITH account AS (UPDATE accounts SET counter = counter + 1 WHERE key = $3 RETURNING counter)
			INSERT INTO `+wr.into()+` (id, topic, key, type, payload, payload_bytes, headers)
			SELECT $1::uuid, $2, $3, $4, $5::json, $6::bytea, $7::jsonb || jsonb_build_object('n', counter::text) FROM account
			RETURNING id, (headers->>'n')::bigint`,
			e.columnID(), e.row.Topic, e.row.Key, e.columnType(), e.payload, e.bytes, headers).Scan(&id, &n)
	}
	e.row.ID = id
	e.number(n)
	return err
}

// insertFromContext leaves id and headers to the table's defaults.
func (wr *writer) insertFromContext(ctx context.Context, tx pgx.Tx, e *event, key int) error {
	n, err := wr.count(ctx, tx, key, 1)
	if err != nil {
		return err
	}
	traceparent := fmt.Sprintf("00-%032x-%016x-01", wr.rng.Uint64(), wr.rng.Uint64())
	delete(e.headers, "traceparent")
	headers, err := e.headersWith(n)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT set_config('outbox.traceparent', $1, true), set_config('outbox.headers', $2, true)`,
		traceparent, headers); err != nil {
		return err
	}
	var id [16]byte
	err = tx.QueryRow(ctx, `INSERT INTO `+wr.into()+` (topic, key, type, payload, payload_bytes)
		VALUES ($1, $2, $3, $4, $5) RETURNING id`, e.row.Topic, e.row.Key, e.columnType(), e.payload, e.bytes).Scan(&id)
	e.row.ID = id
	e.arriving["traceparent"] = []byte(traceparent)
	e.number(n)
	return err
}

// copy writes rows by COPY, which gives all of them one LSN. The counters are
// taken first, key by key.
func (wr *writer) copy(ctx context.Context, tx pgx.Tx, keys []int) error {
	next := map[int]int64{}
	for _, key := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		if key < 0 {
			continue
		}
		wr.meet(key)
		n := int64(0)
		for _, other := range keys {
			if other == key {
				n++
			}
		}
		last, err := wr.count(ctx, tx, key, n)
		if err != nil {
			return err
		}
		wr.hold(key)
		next[key] = last - n + 1
	}
	source := pgx.CopyFromSlice(len(keys), func(i int) ([]any, error) {
		e := wr.compose(keys[i])
		n := int64(0)
		if keys[i] >= 0 {
			n = next[keys[i]]
			next[keys[i]]++
		}
		headers, err := e.headersWith(n)
		e.number(n)
		wr.open = append(wr.open, e.row)
		return []any{
			pgtype.UUID{Bytes: e.row.ID, Valid: true},
			e.row.Topic,
			pgtype.Text{String: e.row.Key, Valid: e.row.Keyed},
			e.columnType(), e.payload, e.bytes, headers,
		}, err
	})
	columns := []string{"id", "topic", "key", "type", "payload", "payload_bytes", "headers"}
	if _, err := tx.CopyFrom(ctx, strings.Split(wr.into(), "."), columns, source); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return nil
}

// into is where events are inserted.
func (wr *writer) into() string {
	if wr.load.cfg.Stream {
		return "outbox.stream"
	}
	return "outbox.events"
}

// count makes the business change: it takes n counters of key and returns the
// last of them. From then on the key is locked until the transaction ends.
func (wr *writer) count(ctx context.Context, tx pgx.Tx, key int, n int64) (last int64, err error) {
	err = tx.QueryRow(ctx, `UPDATE accounts SET counter = counter + $2 WHERE key = $1 RETURNING counter`,
		wr.load.keys[key], n).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("change the business row: %w", err)
	}
	return last, nil
}

func (e *event) columnID() pgtype.UUID { return pgtype.UUID{Bytes: e.row.ID, Valid: e.ownID} }

func (e *event) columnType() *string {
	if e.row.Type == "" {
		return nil
	}
	return &e.row.Type
}
