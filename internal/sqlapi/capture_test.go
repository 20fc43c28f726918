package sqlapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const orders = `CREATE SCHEMA "Shop"; CREATE TABLE "Shop".orders (id int PRIMARY KEY, "State" text, total numeric, secret text, doc json);`

func testCapture(t *testing.T, db database) {
	db.must(orders)
	db.must(`SELECT outbox.capture('"Shop".orders', 'orders', columns => '{id,State,total}')`)
	app := db.as(db.app)
	app.must(`RESET ROLE; GRANT USAGE ON SCHEMA "Shop" TO ` + db.app + `; GRANT ALL ON "Shop".orders TO ` + db.app + `; REVOKE ALL ON outbox.events, outbox.stream FROM ` + db.app + `; SET ROLE ` + db.app)
	app.must(`INSERT INTO "Shop".orders VALUES (1, 'new', 1.10, 'x', '{}')`)
	app.must(`UPDATE "Shop".orders SET "State" = 'paid' WHERE id = 1`)
	app.must(`UPDATE "Shop".orders SET secret = 'y', doc = '{"a":1}' WHERE id = 1`) // nothing that is captured
	app.must(`BEGIN; SET LOCAL outbox.suppress = 'on'; UPDATE "Shop".orders SET "State" = 'hidden'; UPDATE "Shop".orders SET "State" = 'paid'; COMMIT`)
	app.must(`BEGIN; UPDATE "Shop".orders SET "State" = 'gone'; ROLLBACK`)
	app.must(`BEGIN; SET LOCAL outbox.traceparent = '00-1'; UPDATE "Shop".orders SET id = 2 WHERE id = 1; COMMIT`)
	app.must(`DELETE FROM "Shop".orders`)
	const first, paid, two = `{"id":1,"State":"new","total":1.10}`, `{"id":1,"State":"paid","total":1.10}`, `{"id":2,"State":"paid","total":1.10}`
	captured := func(key, operation, before, after string) event {
		return event{"orders", key, "Shop.orders", `{"before" : ` + before + `, "after" : ` + after + `}`, "NULL", operation}
	}
	db.hasEvents(
		captured("1", `{"operation": "insert"}`, "null", first),
		captured("1", `{"operation": "update"}`, first, paid),
		captured("1", `{"operation": "delete", "traceparent": "00-1"}`, paid, "null"),
		captured("2", `{"operation": "insert", "traceparent": "00-1"}`, "null", two),
		captured("2", `{"operation": "delete"}`, two, "null"),
	)
	if got := db.text(`SELECT source || ' ' || enabled FROM outbox.captures`); got != `"Shop".orders true` {
		t.Errorf("captures: %s", got)
	}
	if got := db.text(`outbox.uncapture('"Shop".orders') || ' ' || outbox.uncapture('"Shop".orders')`); got != "true false" {
		t.Errorf("uncapture, twice: %s", got)
	}
	db.must(`INSERT INTO "Shop".orders VALUES (3)`)
	if n := len(db.events()); n != 5 {
		t.Errorf("%d events after uncapture", n)
	}
	if left := db.text(`SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture%Shop%'`); left != "0" {
		t.Errorf("%s functions are left", left)
	}
}

func testCaptureChoices(t *testing.T, db database) {
	db.must(orders)
	db.must(`SELECT outbox.capture('"Shop".orders', 'orders', columns => '{id}')`)
	db.must(`SELECT outbox.capture('"Shop".orders', 'paid', key => '{State,id}', columns => '{secret}', operations => '{update,truncate}', changed => '{State}', condition => 'NEW."State" = ''paid''')`) // in its place
	db.must(`INSERT INTO "Shop".orders VALUES (1, 'new', 1, 'x', NULL), (2, 'new', 2, 'y', NULL)`)
	db.must(`UPDATE "Shop".orders SET secret = 'z' WHERE id = 1`)
	db.must(`UPDATE "Shop".orders SET "State" = 'paid' WHERE id = 1`)
	db.must(`UPDATE "Shop".orders SET "State" = 'lost' WHERE id = 2`)
	db.must(`TRUNCATE "Shop".orders`)
	db.hasEvents(
		event{"paid", `["new", 1]`, "Shop.orders", `{"before" : {"secret":"z"}, "after" : null}`, "NULL", `{"operation": "delete"}`},
		event{"paid", `["paid", 1]`, "Shop.orders", `{"before" : null, "after" : {"secret":"z"}}`, "NULL", `{"operation": "insert"}`},
		event{"paid", "NULL", "Shop.orders", `{"before": null, "after": null}`, "NULL", `{"operation": "truncate"}`},
	)
	if n := db.text(`SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'outbox_capture%'`); n != "2" {
		t.Errorf("%s triggers", n)
	}
}

// Many columns, a long name, partitions, a table without a key.
func testCaptureWideTables(t *testing.T, db database) {
	var columns []string
	for i := range 120 {
		columns = append(columns, fmt.Sprintf("c%d int DEFAULT %[1]d", i))
	}
	long := strings.Repeat("ä", 31)
	db.must(`CREATE TABLE "` + long + `" (` + strings.Join(columns, ", ") + `)`)
	db.must(`SELECT outbox.capture('"` + long + `"', 'wide', key => '{}')`)
	db.must(`INSERT INTO "` + long + `" DEFAULT VALUES`)
	if got := db.text(`SELECT payload->'after'->>'c119' FROM outbox.events`); got != "119" {
		t.Errorf("column 119: %s", got)
	}
	db.must(`SELECT outbox.uncapture('"` + long + `"')`)
	db.must(`CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF parted FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`)
	db.must(`SELECT outbox.capture('parted', 'parted')`)
	db.must(`CREATE TABLE p3 PARTITION OF parted FOR VALUES FROM (20) TO (30)`)
	db.must(`TRUNCATE outbox.events; INSERT INTO parted VALUES (1, 1), (11, 2), (21, 3)`)
	if got := db.text(`SELECT string_agg(key, ' ' ORDER BY seq) FROM outbox.events`); got != "1 11 21" {
		t.Errorf("keys of partitions: %s", got)
	}
}

func testCaptureRefuses(t *testing.T, db database) {
	db.must(orders + `CREATE TABLE bare (a int); CREATE VIEW v AS SELECT 1 AS a`)
	for _, bad := range []struct{ call, code, names string }{
		{`capture(NULL, 't')`, "22023", "source is null"},
		{`capture('nothing', 't')`, "42P01", "nothing"},
		{`capture('outbox.events', 't')`, "22023", "belongs to the outbox"},
		{`capture('bare', 't')`, "22023", "no primary key"},
		{`capture('v', 't', key => '{a}')`, "42809", `"v"`},
		{`capture('bare', 'a b', key => '{a}')`, "23514", `topic "a b"`},
		{`capture('bare', NULL, key => '{a}')`, "23502", "topic is null"},
		{`capture('bare', 't', key => '{b}')`, "42703", "bare has no column b"},
		{`capture('bare', 't', key => '{a}', columns => '{a,c}')`, "42703", "bare has no column c"},
		{`capture('bare', 't', key => '{a}', columns => '{}')`, "42703", "must not be empty"},
		{`capture('bare', 't', key => '{a}', operations => '{upsert}')`, "22023", "operations are {upsert}"},
		{`capture('bare', 't', key => '{a}', operations => '{}')`, "22023", "operations are {}"},
	} {
		if err := db.refused(bad.code, `SELECT outbox.`+bad.call); !strings.Contains(err.Message, bad.names) {
			t.Errorf("%s: %q, want %q", bad.call, err.Message, bad.names)
		}
	}
	// An application cannot have tables captured.
	app := db.as(db.app)
	app.refused("42501", `SELECT outbox.capture('bare', 't', key => '{a}')`)
	// Somebody who writes to the table while it is to be captured is not kept waiting.
	other := postgres.Connect(t, db.url)
	must(t, other, `BEGIN; LOCK bare`)
	if err := db.refused("55P03", `SELECT outbox.capture('bare', 't', key => '{a}')`); err.Message == "" {
		t.Error("no message")
	}
}
