package orm

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun/driver/pgdriver"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// awkward texts are those that some step of the way quotes or reads in another way.
func awkward() []string {
	return []string{"", " ", "NULL", "null", `"`, `\`, `\\"`, "{}", "{a,b}", ",", "'", "''; --", "$1", "$8", "?", ":a", "@a", "\n\t\r", "\x01\x7f", "ß→🦀\u2028", `\u0000`, `a"b\c`, "%s", "/*", "--"}
}

func awkwardMessages(t testing.TB) []outbox.Message {
	t.Helper()
	var msgs []outbox.Message
	for i, text := range awkward() {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs,
			outbox.Message{Topic: fmt.Sprint("t.", i), Key: outbox.Key(text), Payload: json.RawMessage(" {\"b\": 1.10,\t\"a\":" + string(quoted) + ",\n\"b\":1e2 } "), Headers: outbox.Headers{"h" + text: text}},
			outbox.Message{Topic: "t", Type: text, Payload: []byte(text), Headers: outbox.Headers{"null": nil, "number": json.RawMessage("1.10"), "list": []string{text}}},
			outbox.Message{Topic: "t", Payload: json.RawMessage(quoted)})
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return append(msgs, outbox.Message{Topic: "t", Payload: every}, outbox.Message{Topic: "t", Payload: []byte(nil)},
		outbox.Message{Topic: "t", Key: outbox.Key("")}, outbox.Message{Topic: "t"})
}

// begin opens a transaction of one driver.
type begin func(t testing.TB) (tx outbox.Executor, commit func() error)

func beginSQL(db *sql.DB) begin {
	return func(t testing.TB) (outbox.Executor, func() error) {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx, tx.Commit
	}
}

// drivers are all ways that bytes take to the server.
func drivers(t testing.TB, d *database) map[string]begin {
	t.Helper()
	pgdb := sql.OpenDB(pgdriver.NewConnector(pgdriver.WithDSN(d.url)))
	t.Cleanup(func() { _ = pgdb.Close() })
	pq := openSQL(t, "postgres", d.url)
	all := map[string]begin{
		"lib/pq":           beginSQL(pq),
		"lib/pq, binary":   beginSQL(openSQL(t, "postgres", d.url+"&binary_parameters=yes")),
		"pgx stdlib":       beginSQL(openSQL(t, "pgx", d.url)),
		"pgx stdlib, text": beginSQL(openSQL(t, "pgx", d.url+"&default_query_exec_mode=simple_protocol")),
		"pgdriver":         beginSQL(pgdb),
		"sqlx": func(t testing.TB) (outbox.Executor, func() error) {
			t.Helper()
			tx, err := sqlx.NewDb(pq, "postgres").BeginTxx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return tx, tx.Commit
		},
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		pool := openPool(t, d.url, mode)
		all["pgx, "+mode.String()] = func(t testing.TB) (outbox.Executor, func() error) {
			t.Helper()
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return outbox.Pgx(tx), func() error { return tx.Commit(t.Context()) }
		}
	}
	return all
}

// TestEveryByteArrives: whatever the driver and its protocol, the table holds
// what was given, in the order of the arguments, one message a call or all.
func TestEveryByteArrives(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	for name, begin := range drivers(t, d) {
		t.Run(name, func(t *testing.T) {
			msgs := awkwardMessages(t)
			for _, step := range []int{1, len(msgs)} {
				for range 2 { // the second time from a cache of statements, if there is one
					d.exec(t, "TRUNCATE outbox.events")
					tx, commit := begin(t)
					for at := 0; at < len(msgs); at += step {
						ids, err := outbox.Write(t.Context(), tx, msgs[at:at+step]...)
						if err != nil {
							t.Fatal(err)
						}
						for i, id := range ids {
							msgs[at+i].ID = id
						}
					}
					if err := commit(); err != nil {
						t.Fatal(err)
					}
					compare(t, d.rows(t), msgs)
					for i := range msgs {
						msgs[i].ID = outbox.ID{}
					}
				}
			}
		})
	}
}

func compare(t *testing.T, rows []row, msgs []outbox.Message) {
	t.Helper()
	if len(rows) != len(msgs) {
		t.Fatalf("%d rows, want %d", len(rows), len(msgs))
	}
	for i, want := range msgs {
		got := rows[i]
		wantType := &want.Type
		if want.Type == "" {
			wantType = nil
		}
		same := got.ID == want.ID.String() && got.Topic == want.Topic && equal(got.Key, want.Key) && equal(got.Type, wantType)
		switch p := want.Payload.(type) {
		case nil:
			same = same && got.JSON == nil && got.Bytes == nil
		case []byte:
			same = same && got.JSON == nil && got.Bytes != nil && bytes.Equal(got.Bytes, p)
		case json.RawMessage:
			text := string(p)
			same = same && got.Bytes == nil && equal(got.JSON, &text)
		}
		if !same || !sameHeaders(t, got.Header, want.Headers) {
			t.Errorf("row %d is %+v, want %+v", i, got, want)
		}
	}
}

func equal(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// TestEveryMajor writes as the application's role, alone and in crowds, with
// headers of the transaction below those of the message.
func TestEveryMajor(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			d := open(t, major, migrations.Names{})
			pool := openPool(t, d.url, pgx.QueryExecModeCacheStatement)
			tell := func(ctx context.Context, msgs ...outbox.Message) {
				err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
					if _, err := tx.Exec(ctx, `SET LOCAL outbox.traceparent = '00-a-b-01'; SET LOCAL outbox.headers = '{"tenant": "acme", "n": 1.50}'`, pgx.QueryExecModeSimpleProtocol); err != nil {
						return err
					}
					_, err := outbox.WritePgx(ctx, tx, msgs...)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			plain, own := outbox.Message{Topic: "t"}, outbox.Message{Topic: "t", Headers: outbox.Headers{"tenant": "own", "x": nil}}
			tell(t.Context(), plain)
			tell(t.Context(), own)
			tell(t.Context(), plain, own, plain)
			tell(outbox.WithHeaders(t.Context(), map[string]string{"traceparent": "ctx"}), plain)
			ofTx := map[string]any{"tenant": "acme", "n": json.RawMessage("1.50"), "traceparent": "00-a-b-01"}
			both := map[string]any{"tenant": "own", "n": json.RawMessage("1.50"), "traceparent": "00-a-b-01", "x": nil}
			ofContext := map[string]any{"tenant": "acme", "n": json.RawMessage("1.50"), "traceparent": "ctx"}
			rows := d.rows(t)
			for i, want := range []map[string]any{ofTx, both, ofTx, both, ofTx, ofContext} {
				if !sameHeaders(t, rows[i].Header, want) {
					t.Errorf("message %d has %s, want %v", i, *rows[i].Header, want)
				}
			}
			requireRefusedWithoutTransaction(t, d)
		})
	}
}
