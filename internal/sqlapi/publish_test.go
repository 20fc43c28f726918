package sqlapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
)

func behaviours() map[string]func(*testing.T, database) {
	return map[string]func(*testing.T, database){
		"publish":                 testPublish,
		"publish in a bare role":  testPublishAsApp,
		"publish refuses":         testPublishRefuses,
		"publish many":            testPublishMany,
		"publish many refuses":    testPublishManyRefuses,
		"context under own":       testContextUnderOwn,
		"context ends":            testContextEnds,
		"rolled back with its tx": testPublishRolledBack,
		"self-delete":             testSelfDelete,
		"capture":                 testCapture,
		"capture choices":         testCaptureChoices,
		"capture wide tables":     testCaptureWideTables,
		"capture refuses":         testCaptureRefuses,
		"roles":                   testRoles,
		"messages fenced":         testMessagesFenced,
		"health":                  testHealth,
		"partitions":              testPartitions,
		"partitions dropped":      testPartitionsDropped,
		"partitions refused":      testPartitionsRefused,
		"documented sql":          testDocumentedSQL,
		"documented testing":      testDocumentedTesting,
		"documented consuming":    testDocumentedConsuming,
	}
}

// event is a row as a test wants it: every field as text, NULL as "NULL".
type event struct{ Topic, Key, Type, Payload, Bytes, Headers string }

func (db database) events() []event {
	db.t.Helper()
	rows, err := db.Query(db.t.Context(), `SELECT topic, coalesce(key, 'NULL'), coalesce(type, 'NULL'), coalesce(payload::text, 'NULL'),
 coalesce(encode(payload_bytes, 'hex'), 'NULL'), coalesce(headers::text, 'NULL') FROM outbox.events ORDER BY seq`)
	if err != nil {
		db.t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil {
		db.t.Fatal(err)
	}
	return events
}

func (db database) hasEvents(want ...event) {
	db.t.Helper()
	if diff := cmp.Diff(want, db.events(), cmpopts.EquateEmpty()); diff != "" {
		db.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func testPublish(t *testing.T, db database) {
	const odd = `{"b":1,  "a":1.10, "b":"\u00e4"}`
	id := db.text(`outbox.publish('t', 'k', $$` + odd + `$$, 'T', '{"h": "1"}')`)
	db.must(`SELECT outbox.publish('t', 'k', $1, 'T')`, odd) // a parameter of no declared type
	db.must(`SELECT outbox.publish('t', 'k', $1::json)`, odd)
	db.must(`SELECT outbox.publish('t', 'k', $1::jsonb)`, odd)
	db.must(`SELECT outbox.publish('t', NULL, $1::bytea)`, []byte{0, 255})
	db.must(`SELECT outbox.publish('t', '')`)
	db.must(`SELECT outbox.publish(topic => 't', key => 'k', type => 'Gone')`)
	db.must(`SELECT outbox.publish('t', 'k', NULL)`)
	db.must(`SELECT outbox.publish('t', 'k', 'null')`)
	db.hasEvents(
		event{"t", "k", "T", odd, "NULL", `{"h": "1"}`},
		event{"t", "k", "T", odd, "NULL", "NULL"},
		event{"t", "k", "NULL", odd, "NULL", "NULL"},
		event{"t", "k", "NULL", `{"a": 1.10, "b": "ä"}`, "NULL", "NULL"},
		event{"t", "NULL", "NULL", "NULL", "00ff", "NULL"},
		event{"t", "", "NULL", "NULL", "NULL", "NULL"},
		event{"t", "k", "Gone", "NULL", "NULL", "NULL"},
		event{"t", "k", "NULL", "NULL", "NULL", "NULL"},
		event{"t", "k", "NULL", "null", "NULL", "NULL"},
	)
	if first := db.text(`SELECT id FROM outbox.events ORDER BY seq LIMIT 1`); first != id {
		t.Errorf("publish returned %s, the row has %s", id, first)
	}
}

// The role has the printed grants and nothing else.
func testPublishAsApp(_ *testing.T, db database) {
	app := db.as(db.app)
	app.must(`SET outbox.headers = '{"h": "1"}'`)
	app.must(`SELECT outbox.publish('t', 'k', '1')`)
	app.must(`SELECT outbox.publish('t', 'k', $1::bytea)`, []byte{1})
	app.must(`SELECT outbox.publish_many('[{"topic": "t"}]')`)
	app.must(`INSERT INTO outbox.events (topic, headers) VALUES ('t', '{"own": "1"}') RETURNING id`)
	db.hasEvents(
		event{"t", "k", "NULL", "1", "NULL", `{"h": "1"}`},
		event{"t", "k", "NULL", "NULL", "01", `{"h": "1"}`},
		event{"t", "NULL", "NULL", "NULL", "NULL", `{"h": "1"}`},
		event{"t", "NULL", "NULL", "NULL", "NULL", `{"h": "1", "own": "1"}`},
	)
}

// Each wrong call names the argument, by the constraint that the table has for it too.
func testPublishRefuses(t *testing.T, db database) {
	for _, bad := range []struct{ call, code, constraint, names string }{
		{`publish(NULL, 'k', '1')`, "23502", "", "topic is null"},
		{`publish('a b', 'k', '1')`, "23514", "topic_name", `topic "a b"`},
		{`publish(repeat('a', 250), 'k', '1')`, "23514", "topic_name", "topic "},
		{`publish('..', 'k', '1')`, "23514", "topic_name", "topic "},
		{`publish('t', 'k', '{')`, "22P02", "", "payload is not valid JSON"},
		{`publish('t', 'k', '1', 'T', '[]')`, "23514", "headers_object", "headers is a JSON array"},
		{`publish('t', 'k', '1', 'T', '{"type": "x"}')`, "23514", "reserved_header", `headers holds "type"`},
		{`publish('t', 'k', '1', 'T', '{"outrider-x": "x"}')`, "23514", "reserved_header", `headers holds "outrider-x"`},
		{`publish('t', 'k', to_json(repeat('a', 950000)))`, "23514", "row_size", "950003 octets"},
		{`publish('t', 'k', decode(repeat('00', 950001), 'hex'))`, "23514", "row_size", "950002 octets"},
		{`check_event('t', NULL, NULL, '1', '1', NULL)`, "23514", "one_payload", "both payload and payload_bytes"},
	} {
		err := db.refused(bad.code, `SELECT outbox.`+bad.call)
		if !strings.Contains(err.Message, bad.names) || err.ConstraintName != bad.constraint {
			t.Errorf("%s: %q, constraint %q; want %q, %q", bad.call, err.Message, err.ConstraintName, bad.names, bad.constraint)
		}
		if err.Hint == "" {
			t.Errorf("%s: no hint", bad.call)
		}
	}
	// What lies in the transaction is refused as what the row brings.
	for setting, names := range map[string]string{`{`: "setting outbox.headers is not valid JSON", `[]`: "setting outbox.headers is a JSON array"} {
		db.must(`SELECT set_config('outbox.headers', $1, false)`, setting)
		for _, call := range []string{`SELECT outbox.publish('t', 'k', '1')`, `INSERT INTO outbox.events (topic) VALUES ('t')`, `INSERT INTO outbox.events (topic, headers) VALUES ('t', '{"a": "1"}')`} {
			if err := db.refused("22023", call); !strings.Contains(err.Message, names) {
				t.Errorf("setting %s: %q", setting, err.Message)
			}
		}
	}
	db.must(`SET outbox.headers = '{"id": "x"}'`)
	if err := db.refused("23514", `SELECT outbox.publish('t', 'k', '1')`); err.ConstraintName != "reserved_header" {
		t.Errorf("a reserved header of the transaction: %v", err)
	}
	db.hasEvents()
}

func testPublishMany(t *testing.T, db database) {
	const given = "00000000-0000-7000-8000-000000000001"
	rows, err := db.Query(t.Context(), `SELECT outbox.publish_many($1)::text`, `[
		{"topic": "t", "key": "k", "type": "T", "payload": {"b":1,  "a":1.10, "b":2}, "headers": {"h": null}},
		{"topic": "t", "payload_bytes": "AP8=", "id": "`+given+`"},
		{"topic": "t", "key": "", "payload": null, "headers": null, "payload_bytes": null, "id": null},
		{"topic": "t", "payload": "text"}]`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	db.hasEvents(
		event{"t", "k", "T", `{"b":1,  "a":1.10, "b":2}`, "NULL", `{"h": null}`},
		event{"t", "NULL", "NULL", "NULL", "00ff", "NULL"},
		event{"t", "", "NULL", "NULL", "NULL", "NULL"},
		event{"t", "NULL", "NULL", `"text"`, "NULL", "NULL"},
	)
	if got := db.text(`SELECT string_agg(id::text, ',' ORDER BY seq) FROM outbox.events`); got != strings.Join(ids, ",") || ids[1] != given {
		t.Errorf("ids %v, in the table %s", ids, got)
	}
	// Many keep their order, and come in one statement.
	db.must(`TRUNCATE outbox.events`)
	db.must(`SELECT outbox.publish_many((SELECT json_agg(json_build_object('topic', 't', 'payload', n) ORDER BY n) FROM generate_series(1, 5000) n))`)
	if out := db.text(`SELECT count(*) FROM (SELECT payload::text::int - lag(payload::text::int) OVER (ORDER BY seq) AS step FROM outbox.events) s WHERE step <> 1`); out != "0" {
		t.Errorf("%s of 5000 are out of order", out)
	}
	db.must(`SELECT outbox.publish_many('[]')`)
	db.must(`SELECT outbox.publish_many(NULL)`)
}

func testPublishManyRefuses(t *testing.T, db database) {
	for _, bad := range []struct{ events, code, names string }{
		{`{}`, "22023", "events is a JSON object"},
		{`[{"topic": "t"}, 1]`, "22023", "events[1] is a JSON number"},
		{`[{"topic": "t"}, {"topic": "t", "payloads": 1}]`, "22023", `events[1] has the field "payloads"`},
		{`[{"topic": "t"}, {"key": "t"}]`, "23502", "events[1]: topic is null"},
		{`[{"topic": "t", "payload": 1, "payload_bytes": "AA=="}]`, "23514", "events[0]: both payload"},
		{`[{"topic": "t", "payload_bytes": "A"}]`, "22023", "base64"},
		{`[{"topic": "t", "headers": []}]`, "23514", "headers is a JSON array"},
		{`[{"topic": "t", "id": "7"}]`, "22P02", "uuid"},
	} {
		if err := db.refused(bad.code, `SELECT outbox.publish_many($1)`, bad.events); !strings.Contains(err.Message, bad.names) {
			t.Errorf("%s: %q, want %q", bad.events, err.Message, bad.names)
		}
	}
	db.hasEvents()
}

// The row's own headers win over outbox.traceparent, which wins over outbox.headers.
func testContextUnderOwn(_ *testing.T, db database) {
	db.must(`SET outbox.headers = '{"a": "context", "b": "context", "traceparent": "x"}'`)
	db.must(`SET outbox.traceparent = '00-1'`)
	const merged, plain = `{"a": "own", "b": "context", "traceparent": "00-1"}`, `{"a": "context", "b": "context", "traceparent": "00-1"}`
	db.must(`INSERT INTO outbox.events (topic, headers) VALUES ('t', '{"a": "own"}')`)
	db.must(`INSERT INTO outbox.events (topic, headers) VALUES ('t', NULL)`)
	db.must(`INSERT INTO outbox.events (topic) VALUES ('t')`)
	db.must(`SELECT outbox.publish('t', NULL, NULL, NULL, '{"a": "own"}')`)
	db.must(`SELECT outbox.publish_many('[{"topic": "t", "headers": {"a": "own"}}, {"topic": "t"}]')`)
	want := []event{}
	for _, headers := range []string{merged, plain, plain, merged, merged, plain} {
		want = append(want, event{"t", "NULL", "NULL", "NULL", "NULL", headers})
	}
	db.hasEvents(want...)
}

// SET LOCAL lasts as long as the transaction, also in the eyes of the trigger.
func testContextEnds(t *testing.T, db database) {
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		db.must(`BEGIN; SET LOCAL outbox.traceparent = '00-1'; SET LOCAL outbox.headers = '{"a": "1"}'; ` + end)
		db.must(`INSERT INTO outbox.events (topic, headers) VALUES ('t', NULL)`)
	}
	for i, e := range db.events() {
		if e.Headers != "NULL" {
			t.Errorf("event %d has headers %s", i, e.Headers)
		}
	}
}

func testPublishRolledBack(_ *testing.T, db database) {
	db.must(`BEGIN; SELECT outbox.publish('t', 'k', '1'); SAVEPOINT s; SELECT outbox.publish('t', 'k', '2'); ROLLBACK TO s; SELECT outbox.publish('t', 'k', '3'); COMMIT`)
	db.must(fmt.Sprintf(`BEGIN; SELECT outbox.publish('t', 'k', '%d'); ROLLBACK`, 4))
	db.hasEvents(event{"t", "k", "NULL", "1", "NULL", "NULL"}, event{"t", "k", "NULL", "3", "NULL", "NULL"})
}

// In mode self-delete the table stays empty, and small without a vacuum: pages
// are pruned as they fill. Rows of one statement go together, and COPY, too.
func testSelfDelete(t *testing.T, db database) {
	db.must(`SELECT outbox.set_mode('self-delete')`)
	db.must(`CREATE PROCEDURE write(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP INSERT INTO outbox.events (topic, payload) VALUES ('t', to_json(repeat('x', 400))); COMMIT; END LOOP; END $$`)
	db.must(`CALL write(2000)`)
	if got := db.text(`pg_relation_size('outbox.events') < 300000`); got != "true" {
		t.Errorf("the table has %s bytes", db.text(`pg_relation_size('outbox.events')`))
	}
	db.must(`INSERT INTO outbox.events (topic) SELECT 't' FROM generate_series(1, 1000)`)
	if _, err := db.PgConn().CopyFrom(t.Context(), strings.NewReader("t\nt\n"), `COPY outbox.events (topic) FROM STDIN`); err != nil {
		t.Fatal(err)
	}
	db.must(`INSERT INTO outbox.events (topic) VALUES ('t') RETURNING id`)
	db.hasEvents()
}
