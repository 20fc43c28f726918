package outboxtest

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/internal/statement"
)

// Querier is an open transaction of database/sql, or what wraps one.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// PgxQuerier is what a pgx.Tx looks like without importing pgx: R is pgx.Rows,
// which the compiler infers.
type PgxQuerier[R PgxRows] interface {
	Query(ctx context.Context, sql string, args ...any) (R, error)
}

// PgxRows is what is needed of pgx.Rows.
type PgxRows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// Outbox names the table to read. The zero Outbox is the default one, which the
// functions of this package use; [Read] and [ReadPgx] take another.
type Outbox struct {
	Schema string // "" is "outbox"
	Table  string // "" is "events"
}

// Written returns what the transaction has written so far, in order. Payloads
// are nil (a tombstone), []byte or json.RawMessage, as they arrive on Kafka;
// headers are strings, nil or json.RawMessage, the transaction's included.
func Written(tb testing.TB, tx Querier) []outbox.Message {
	tb.Helper()
	return Read(tb, tx, Outbox{})
}

// WrittenPgx is [Written] for a pgx.Tx.
func WrittenPgx[R PgxRows](tb testing.TB, tx PgxQuerier[R]) []outbox.Message {
	tb.Helper()
	return ReadPgx(tb, tx, Outbox{})
}

// Read is [Written] for a table of another name.
func Read(tb testing.TB, tx Querier, from Outbox) []outbox.Message {
	tb.Helper()
	rows, err := tx.QueryContext(context.Background(), from.query())
	if err != nil {
		tb.Fatalf("outboxtest: %v", err)
	}
	msgs, err := scanAll(rows)
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
		tb.Fatalf("outboxtest: %v", err)
	}
	return msgs
}

// ReadPgx is [WrittenPgx] for a table of another name.
func ReadPgx[R PgxRows](tb testing.TB, tx PgxQuerier[R], from Outbox) []outbox.Message {
	tb.Helper()
	rows, err := tx.Query(context.Background(), from.query())
	if err != nil {
		tb.Fatalf("outboxtest: %v", err)
	}
	defer rows.Close()
	msgs, err := scanAll(rows)
	if err = errors.Join(err, rows.Err()); err != nil {
		tb.Fatalf("outboxtest: %v", err)
	}
	return msgs
}

// query selects by the transaction's own id: at READ COMMITTED other
// transactions may commit rows in the meantime. Savepoints do not matter, since
// tx is that of the top level.
func (o Outbox) query() string {
	schema, table := "outbox", "events"
	if o.Schema != "" {
		schema = o.Schema
	}
	if o.Table != "" {
		table = o.Table
	}
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	return "SELECT id::text, topic, key, type, payload::text, encode(payload_bytes, 'base64'), headers::text FROM " +
		quote(schema) + "." + quote(table) + " WHERE tx = pg_current_xact_id_if_assigned() ORDER BY seq"
}

func scanAll(rows interface {
	Next() bool
	Scan(dest ...any) error
},
) ([]outbox.Message, error) {
	var msgs []outbox.Message
	for rows.Next() {
		var r statement.Row
		if err := rows.Scan(&r.ID, &r.Topic, &r.Key, &r.Type, &r.JSON, &r.Base64, &r.Headers); err != nil {
			return nil, err
		}
		m, err := message(r)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// message is the way back from what was stored.
func message(r statement.Row) (outbox.Message, error) {
	m := outbox.Message{Topic: r.Topic, Key: r.Key}
	id, err := outbox.ParseID(r.ID)
	if err != nil {
		return m, err
	}
	m.ID = id
	if r.Type != nil {
		m.Type = *r.Type
	}
	switch {
	case r.JSON != nil:
		m.Payload = json.RawMessage(*r.JSON)
	case r.Base64 != nil:
		payload, err := base64.StdEncoding.DecodeString(*r.Base64) // line breaks of Postgres are skipped
		if err != nil {
			return m, fmt.Errorf("payload of %s: %w", r.ID, err)
		}
		m.Payload = payload
	}
	if r.Headers == nil {
		return m, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(*r.Headers), &values); err != nil {
		return m, fmt.Errorf("headers of %s: %w", r.ID, err)
	}
	m.Headers = outbox.Headers{}
	for name, value := range values {
		switch {
		case string(value) == "null":
			m.Headers[name] = nil
		case value[0] == '"':
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return m, fmt.Errorf("headers of %s: %w", r.ID, err)
			}
			m.Headers[name] = text
		default:
			m.Headers[name] = value
		}
	}
	return m, nil
}
