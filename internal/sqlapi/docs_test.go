package sqlapi_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// Every statement of docs/sql.md works, in the order of the page.
func testDocumentedSQL(t *testing.T, db database) {
	page, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	db.must(`CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric); INSERT INTO orders VALUES (42, 'new', 1.10)`)
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 8 {
		t.Fatalf("%d blocks of SQL", len(blocks))
	}
	for _, block := range blocks {
		db.must(string(block[1]))
	}
	value := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindSubmatch(page)
	if got := db.text(`SELECT payload FROM outbox.events WHERE topic = 'order-changes'`); len(value) != 2 || got != string(value[1]) {
		t.Errorf("the captured change is %s", got)
	}
	want := []event{
		{"orders", "42", "OrderPaid", `{"order": 42, "state": "paid"}`, "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"order": 42, "state": "paid"}`, "NULL", `{"tenant": "acme"}`},
		{"pictures", "42", "NULL", "NULL", "89504e47", "NULL"},
		{"orders", "42", "NULL", "NULL", "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"total": 1.10}`, "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"order": 42}`, "NULL", "NULL"},
		{"mails", "7", "NULL", "NULL", "48656c6c6f", `{"tenant": "acme"}`},
		{"orders", "42", "NULL", `{"order": 42}`, "NULL", `{"source": "shop", "tenant": "acme", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`},
	}
	db.must(`DELETE FROM outbox.events WHERE topic = 'order-changes'`)
	db.hasEvents(want...) // what was streamed is stored nowhere
}

// The statements of docs/consuming.md work; an event is new once.
func testDocumentedConsuming(t *testing.T, db database) {
	page, err := os.ReadFile("../../docs/consuming.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of SQL", len(blocks))
	}
	var got []string
	for range 2 {
		for statement := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(string(blocks[0][1])), ";"), ";\n") {
			got = append(got, db.text(statement))
		}
	}
	if want := "true {t} 0 false {f} 0"; strings.Join(got, " ") != want {
		t.Errorf("answers are %q, want %s", got, want)
	}
}

// The statements of docs/testing.md work, and what it says is refused is refused.
func testDocumentedTesting(t *testing.T, db database) {
	page, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	db.must(`CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric); INSERT INTO orders VALUES (42, 'new', 1.10)`)
	name, server := db.text(`SELECT current_database()`), postgres.Connect(t, db.url)
	other := database{Conn: server, t: t}
	db.must(`SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')`)
	other.must(`CREATE DATABASE aside_` + name)
	admin := database{Conn: postgres.Connect(t, strings.Replace(db.url, name, "aside_"+name, 1)), t: t}
	admin.refused("55006", `CREATE DATABASE copy_`+name+` TEMPLATE `+name)
	stream(t, db, "s_"+name)
	admin.refused("55006", `DROP DATABASE `+name+` WITH (FORCE)`)
	db.Conn = postgres.Connect(t, db.url) // FORCE has ended the others first
	db.must(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active`)
	for db.text(`SELECT count(*) FROM pg_replication_slots WHERE active`) != "0" {
		db.must(`SELECT pg_sleep(0.01)`)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of SQL", len(blocks))
	}
	for _, block := range blocks {
		db.must(string(block[1]))
	}
	if got := db.text(`SELECT (SELECT state FROM orders) || (SELECT count(*) FROM outbox.events) || (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())`); got != "new00" {
		t.Errorf("afterwards: %s", got)
	}
	db.must(`SELECT pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')`)
	admin.must(`DROP DATABASE ` + name + ` WITH (FORCE)`) // with the slot that nobody uses
	if got := admin.text(`SELECT count(*) FROM pg_replication_slots`); got != "0" {
		t.Errorf("%s slots are left", got)
	}
	admin.must(`CREATE DATABASE ` + name)
	if err := admin.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, postgres.Connect(t, db.url), `DROP DATABASE aside_`+name)
}

// stream uses a slot until the test ends, or somebody ends the walsender.
func stream(t *testing.T, db database, slot string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), db.url+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf(`START_REPLICATION SLOT %q LOGICAL 0/0 (proto_version '1', publication_names 'outrider')`, slot)})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		message, err := conn.Frontend().Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyBothResponse:
			return
		case *pgproto3.ErrorResponse:
			t.Fatal(m.Message)
		}
	}
}
