package pgoutput_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

var update = flag.Bool("update", false, "write testdata anew from servers of all majors")

// preparation is what exists before the slot, so that no transaction of it is decoded.
var preparation = []string{
	`CREATE TYPE mood AS ENUM ('glad', 'sad')`,
	`CREATE TYPE pair AS (a int4, b text)`,
	`CREATE TABLE things (id int8 PRIMARY KEY, uid uuid, j json, jb jsonb, raw bytea, acl aclitem, m mood, p pair,
		num numeric, at timestamptz, ok boolean, label text) WITH (autovacuum_enabled = off)`,
	`DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' ||
		(SELECT string_agg(format('%I int4', 'c' || n), ', ' ORDER BY n) FROM generate_series(1, 300) n) ||
		') WITH (autovacuum_enabled = off)'; END $$`,
	`CREATE TABLE "Mixed ""Case" ("a b" text) WITH (autovacuum_enabled = off)`,
	`ALTER TABLE things REPLICA IDENTITY FULL`,
	`CREATE PUBLICATION p FOR TABLE things, wide, "Mixed ""Case"`,
	`SELECT pg_replication_origin_create('pgoutput_test')`,
	`SELECT pg_create_logical_replication_slot('pgoutput_test', 'pgoutput')`,
}

// statements are a transaction each.
var statements = []string{
	`INSERT INTO things VALUES
		(1, '0190163d-8694-739b-aea5-966c26f8ad91', '{"a": 1}', '{"a": 1}', '\x00ff10', 'pg_monitor=r/pg_monitor', 'sad', (7, 'x'),
			1.5, '2026-11-22 12:00:00.123456+00', true, 'täxt'),
		(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
		(3, NULL, 'null', '[]', '', 'pg_monitor=/pg_monitor', 'glad', NULL, 0, 'infinity', false, '')`,
	`INSERT INTO wide (c1, c300) VALUES (1, -1)`,
	`INSERT INTO "Mixed ""Case" VALUES ('v')`,
	`UPDATE things SET label = 'changed' WHERE id = 2`,
	`DELETE FROM things WHERE id = 2`,
	`TRUNCATE things, wide`,
	`SELECT pg_logical_emit_message(true, 'inside', 'content')`,
	`SELECT pg_logical_emit_message(false, '', '')`,
	`SELECT pg_replication_origin_session_setup('pgoutput_test')`,
	`INSERT INTO "Mixed ""Case" VALUES (NULL)`,
	`SELECT pg_replication_origin_session_reset()`,
}

// A server of each major sends what the golden files say, apart from what no
// two runs have in common. With -update the files are written instead.
func TestServersSendGolden(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			sent := capture(t, postgres.Start(t, major).URL())
			if *update {
				writeGolden(t, major, sent)
			}
			if d := cmp.Diff(describe(t, golden(t, major)), describe(t, sent)); d != "" {
				t.Errorf("the server sends something else than testdata (-golden +server):\n%s", d)
			}
		})
	}
}

// capture runs the statements and returns what pgoutput makes of them: the
// bytes that a walsender would put into XLogData.
func capture(t *testing.T, url string) [][]byte {
	t.Helper()
	ctx := t.Context()
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(ctx) }()
	for _, sql := range append(append([]string{}, preparation...), statements...) {
		if _, err := db.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	rows, err := db.Query(ctx, `SELECT data FROM pg_logical_slot_get_binary_changes('pgoutput_test', NULL, NULL,
		'proto_version', '1', 'publication_names', 'p', 'binary', 'true', 'messages', 'true')`)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	// A shared server lives on.
	for _, sql := range []string{`SELECT pg_drop_replication_slot('pgoutput_test')`, `SELECT pg_replication_origin_drop('pgoutput_test')`} {
		if _, err := db.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return sent
}

func goldenFile(major int) string { return filepath.Join("testdata", fmt.Sprintf("%d.hex", major)) }

func writeGolden(t *testing.T, major int, messages [][]byte) {
	t.Helper()
	var b bytes.Buffer
	for _, m := range messages {
		fmt.Fprintln(&b, hex.EncodeToString(m))
	}
	if err := os.WriteFile(goldenFile(major), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// golden are the messages captured from a major, one a line.
func golden(tb testing.TB, major int) [][]byte {
	tb.Helper()
	text, err := os.ReadFile(goldenFile(major))
	if err != nil {
		tb.Fatal(err)
	}
	var messages [][]byte
	for line := range bytes.Lines(text) {
		m, err := hex.DecodeString(string(bytes.TrimSpace(line)))
		if err != nil {
			tb.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}
