package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// streamed counts what pgoutput, the decoder from which relays read, sends for
// events that hold this text, from when the slot was made.
func (d *deadOutbox) streamed(text string) string {
	d.t.Helper()
	return d.text(`SELECT count(*)::text FROM pg_logical_slot_peek_binary_changes('reader', NULL, NULL, 'proto_version', '1', 'publication_names', 'outrider')
WHERE get_byte(data, 0) = ascii('I') AND position(convert_to($1, 'UTF8') in data) > 0`, text)
}

func (d *deadOutbox) makeReader() {
	d.t.Helper()
	d.exec(`SELECT pg_create_logical_replication_slot('reader', 'pgoutput')`)
}

// event is the row of events with that id, but for what the database sets.
func (d *deadOutbox) event(id string) string {
	d.t.Helper()
	return d.text(`SELECT coalesce((SELECT concat_ws(' | ', topic, coalesce(key, '<null>'), coalesce(type, '<null>'), coalesce('json ' || payload::text, 'bytes ' || payload_bytes::text, 'tombstone'), coalesce(headers::text, '<null>'))
FROM outbox.events WHERE id = $1::text::uuid), 'none')`, id)
}

func TestDeadletterRetry(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) { retryMovesEvents(t, deadOutboxIn(t, postgres.Start(t, major).URL())) })
	}
}

func retryMovesEvents(t *testing.T, d *deadOutbox) {
	// The first event is still in the table, the second is not: retention took it.
	d.exec(`INSERT INTO outbox.events (id, topic, key, type, payload, headers, created_at) VALUES ($1, 'orders', 'k', 'Paid', '{"n": 1}', '{"a": "1"}', now() - interval '1 day')`, id1)
	d.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('orders', '"behind it"')`)
	before := d.text(`SELECT max(seq)::text FROM outbox.events`)
	d.refuse(id1, "P.1", stateDeadLettered, "")
	d.refuse(id2, "P.2", stateSkipped, `value = '{"n": 2}', key = NULL, type = NULL, headers = NULL`)
	d.refuse(id3, "P.3", stateSkipped, `slot = 'other'`)
	d.refuse(id4, "P.4", stateHalted, "")
	d.makeReader()

	if out := d.works("retry", id1, "P.2"); out != "retried "+id1+": topic orders\nretried "+id2+": topic orders\n" {
		t.Errorf("retry says:\n%s", out)
	}
	for id, want := range map[string]string{
		id1: `orders | k | Paid | json {"n": 1} | {"a": "1"}`,
		id2: `orders | <null> | <null> | json {"n": 2} | <null>`,
	} {
		if got := d.event(id); got != want {
			t.Errorf("event %s is %q, want %q", id, got, want)
		}
		if n := d.streamed(id); n != "1" {
			t.Errorf("a reader of the stream sees event %s %s times, want once", id, n)
		}
	}
	if d.text(`SELECT bool_and(seq > $1::text::bigint AND created_at > now() - interval '1 minute')::text FROM outbox.events WHERE id IN ($2::text::uuid, $3::text::uuid)`, before, id1, id2) != "true" {
		t.Error("retried events are not at the end of the table")
	}
	if want := "P.3 skipped, P.4 halted"; d.states() != want {
		t.Errorf("left %q, want %q", d.states(), want)
	}
	d.refused(1, []string{`no refused row has the id or position "` + id1}, "retry", id1)

	// Refused again, twice, before and after a recovery: one event is enough.
	d.refuse(id1, "P.1", stateSkipped, `value = '"older"', created_at = now() - interval '1 minute'`)
	d.refuse(id1, "Q.1", stateDeadLettered, `source = '7.1.outrider_test.1'`)
	d.refuse("", "P.5", stateSkipped, "")
	if out := d.works("retry", "--all"); out != "retried "+id1+": topic orders\n" {
		t.Errorf("retry --all says:\n%s", out)
	}
	if n := d.text(`SELECT count(*)::text FROM outbox.events`); n != "3" || d.streamed(id1) != "2" {
		t.Errorf("%s events, %s of them streamed under %s", n, d.streamed(id1), id1)
	}
	if want := "P.3 skipped, P.4 halted, P.5 skipped"; d.states() != want {
		t.Errorf("left %q, want %q", d.states(), want)
	}
	if out := d.works("retry", "--all"); out != "nothing to retry\n" {
		t.Errorf("retry --all without rows says %q", out)
	}
}

// TestDeadletterRetryIsPublished looks at what a running relay brings out: the
// event as it was inserted, and after the retry once more, under the same id.
func TestDeadletterRetryIsPublished(t *testing.T) {
	d := newDeadOutbox(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "outrider", "run")
	race, quick := quickExit()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), race + "=" + quick, "OUTRIDER_SINK=stdout", "OUTRIDER_HTTP_ADDR=127.0.0.1:0"}, d.environ...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(stdout)
	published := func() (line map[string]any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("the relay ended without it")
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		return line
	}
	d.exec(`INSERT INTO outbox.events (id, topic, key, type, payload, headers) VALUES ($1, 'orders', 'k', 'Paid', '{"n": 1}', '{"a": "1"}')`, id1)
	first := published()
	d.refuse(id1, fmt.Sprint(first["position"]), stateSkipped, "")
	d.works("retry", id1)
	again := published()
	if first["position"] == again["position"] {
		t.Errorf("published at the same position again: %v", again)
	}
	for _, line := range []map[string]any{first, again} {
		delete(line, "position")
		delete(line, "committed_at")
	}
	if diff := cmp.Diff(first, again); diff != "" || fmt.Sprint(again["headers"].(map[string]any)["id"]) != id1 {
		t.Errorf("the retried event (-first +again):\n%s", diff)
	}
}

// TestDeadletterRetryKeepsBytes: what Kafka gets is what the row held, in whichever column.
func TestDeadletterRetryKeepsBytes(t *testing.T) {
	d := newDeadOutbox(t)
	// Headers of the session are not those of the row.
	d.exec(`ALTER DATABASE postgres SET outbox.headers = '{"tenant": "operator"}'`)
	for i, c := range []struct{ value, want string }{
		{`'{"b":1,  "a":2, "b":3, "n":1.10e400, "z":"\u0000"}'`, `json {"b":1,  "a":2, "b":3, "n":1.10e400, "z":"\u0000"}`},
		{`'null'`, `json null`},
		{`E' [1]\n'`, "json  [1]\n"},
		{`'"\ud800"'`, ``}, // whether json takes half a surrogate pair is the server's business
		{`'{"a": 1'`, `bytes \x7b2261223a2031`},
		{`''`, `bytes \x`},
		{`'\x22ff22'`, `bytes \x22ff22`}, // JSON but for its encoding
		{`'\x2200'`, `bytes \x2200`},
		{`NULL`, `tombstone`},
	} {
		id := fmt.Sprintf("01997d3c-0000-7000-8000-%012d", i)
		value := "convert_to(" + c.value + ", 'UTF8')"
		if strings.HasPrefix(c.value, `'\x`) {
			value = c.value + "::bytea"
		}
		d.refuse(id, "P.1", stateSkipped, `headers = NULL, value = `+value)
		kept := d.text(`SELECT value::text FROM outbox.dead`)
		d.works("retry", id)
		got := d.event(id)
		if c.want != "" && got != "orders | k | Paid | "+c.want+" | <null>" {
			t.Errorf("%s came back as %q, want %s", c.value, got, c.want)
		}
		if bytes := d.text(`SELECT coalesce(payload_bytes, convert_to(payload::text, 'UTF8'))::text FROM outbox.events WHERE id = $1::text::uuid`, id); bytes != kept {
			t.Errorf("%s: bytes %s, want %s", c.value, bytes, kept)
		}
	}
}

// TestDeadletterRetryInAnotherEncoding: JSON that the database cannot spell stays bytes.
func TestDeadletterRetryInAnotherEncoding(t *testing.T) {
	server := postgres.Start(t, 0)
	server.Private(t)
	admin := deadOutboxIn(t, server.URL())
	admin.exec(`CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	d := deadOutboxIn(t, server.DatabaseURL("latin"))
	d.exec(`SET client_encoding = 'UTF8'`)                       // as the relay reads the log
	d.refuse(id1, "P.1", stateSkipped, `value = '\x22c3a422'`)   // "ä"
	d.refuse(id2, "P.2", stateSkipped, `value = '\x22e282ac22'`) // "€", which LATIN1 lacks
	d.works("retry", "--all")
	for id, want := range map[string]string{id1: `json "ä"`, id2: `bytes \x22e282ac22`} {
		if got := d.event(id); got != "orders | k | Paid | "+want+` | {"a": "1"}` {
			t.Errorf("event is %q, want %s", got, want)
		}
	}
}

// TestDeadletterRetryRefused: nothing is changed by what cannot work, and the way out is told.
func TestDeadletterRetryRefused(t *testing.T) {
	d := newDeadOutbox(t)
	byHand := []string{"hint: nothing was changed", "outrider deadletter show " + id1, "outrider deadletter drop " + id1}
	d.exec(`INSERT INTO outbox.events (id, topic, payload) VALUES ($1, 'orders', '1')`, id1)
	for _, c := range []struct {
		state, set string
		parts      []string
		args       []string
	}{
		{stateSkipped, `value = decode(repeat('00', 950001), 'hex')`, append(byHand, `"row_size"`), nil},
		{stateSkipped, `headers = '{"id": "x"}'`, append(byHand, `"reserved_header"`), nil},
		{stateSkipped, `headers = '[]'`, append(byHand, `"headers_object"`), nil},
		{stateSkipped, `headers = 'not even JSON'`, append(byHand, "invalid input syntax"), nil},
		{stateSkipped, ``, []string{`"topic_name"`, "hint: nothing was changed", "outrider deadletter retry --topic <topic> " + id1}, []string{"--topic", "no topic"}},
		{stateHalted, ``, []string{"is halted", "outrider deadletter divert " + id1}, nil},
		{stateSkip, ``, []string{"was answered with skip"}, nil},
	} {
		d.exec(`DELETE FROM outbox.dead`)
		d.refuse(id1, "P.1", c.state, c.set)
		d.refused(1, c.parts, append([]string{"retry", id1}, c.args...)...)
	}
	// The relay waits at the same event elsewhere.
	d.exec(`DELETE FROM outbox.dead`)
	d.refuse(id1, "P.1", stateSkipped, "")
	d.refuse(id1, "Q.1", stateHalted, `source = '7.1.outrider_test.1'`)
	d.refused(1, []string{"at Q.1 is halted"}, "retry", id1)
	d.refused(1, []string{"at Q.1 is halted"}, "retry", "P.1")
	d.refused(1, []string{"at Q.1 is halted"}, "retry", "--all")
	d.exec(`DELETE FROM outbox.dead`)

	d.refuse("", "P.1", stateSkipped, "")
	d.refused(1, []string{"P.1 has no id", "outrider deadletter drop P.1"}, "retry", "P.1")
	d.refuse("order-42", "P.2", stateSkipped, "")
	d.refused(1, []string{"invalid input syntax for type uuid", "outrider deadletter drop order-42"}, "retry", "order-42")
	d.refused(1, []string{`"nobody"`}, "retry", "P.2", "nobody")
	d.refused(78, []string{"not both"}, "retry", "--all", id1)
	d.refused(78, []string{"--all"}, "retry")

	// One that does not work keeps no other from it.
	d.refuse(id2, "P.3", stateSkipped, "")
	code, stdout, stderr := d.deadletter("retry", "--all")
	if code != 1 || stdout != "retried "+id2+": topic orders\n" || !strings.Contains(stderr, "order-42") || d.states() != "P.1 skipped, P.2 skipped" {
		t.Errorf("retry --all: exit code %d\n%s%s%s", code, stdout, stderr, d.states())
	}
}

// TestDeadletterRetryTopic: the column holds what the application wrote, the refused row where it was to go.
func TestDeadletterRetryTopic(t *testing.T) {
	d := newDeadOutbox(t)
	for _, c := range []struct{ prefix, renamed, went, args, want string }{
		{"", "", "orders", "", "orders"},
		{"", "", "orders", "orders-2", "orders-2"},
		{"eu.", "", "eu.orders", "", "orders"},
		{"eu.", "orders:sales", "eu.eu.x", "", "eu.x"},
		{"", "a:b,b:c", "b", "", "a"}, // what was b went to c
		{"eu.", "orders:sales", "eu.sales", "sales", "sales"},
	} {
		d.environ = append(d.environ[:2:2], "OUTRIDER_TOPIC_PREFIX="+c.prefix, "OUTRIDER_TOPIC_MAP="+c.renamed)
		d.exec(`DELETE FROM outbox.events`)
		d.refuse(id1, "P.1", stateSkipped, `topic = '`+c.went+`'`)
		args := []string{"retry", id1}
		if c.args != "" {
			args = append(args, "--topic", c.args)
		}
		if out := d.works(args...); out != "retried "+id1+": topic "+c.want+"\n" || !strings.HasPrefix(d.event(id1), c.want+" | ") {
			t.Errorf("%+v: %s%s", c, out, d.event(id1))
		}
	}
	// The event in the table knows best.
	d.exec(`UPDATE outbox.events SET topic = 'bills'`)
	d.refuse(id1, "P.1", stateSkipped, `topic = 'eu.sales'`)
	d.works("retry", id1)
	if got := d.event(id1); !strings.HasPrefix(got, "bills | ") {
		t.Errorf("event is %q", got)
	}
	// What is not certain is not guessed: sales may have been orders or sales, and us.orders is of another configuration.
	d.exec(`DELETE FROM outbox.events`)
	for _, went := range []string{"eu.sales", "us.orders"} {
		d.exec(`DELETE FROM outbox.dead`)
		d.refuse(id1, "P.1", stateSkipped, `topic = '`+went+`'`)
		d.refused(1, []string{`"` + went + `"`, "outrider deadletter retry --topic <topic> " + id1}, "retry", id1)
	}
}

// TestDeadletterRetryOtherTables: only rows of a table that is known are written.
func TestDeadletterRetryOtherTables(t *testing.T) {
	d := newDeadOutbox(t)
	d.refuse(id1, "P.1", stateSkipped, "")
	d.exec(`CREATE TABLE public.debezium (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb);
CREATE VIEW public.seen AS SELECT * FROM outbox.events`)
	for table, parts := range map[string][]string{
		"public.debezium": {"table public.debezium is not as outrider migrate makes it", "payload json", "outrider deadletter show --value <id>"},
		"public.seen":     {"it is no table"},
		"public.nothing":  {"there is no table public.nothing", "OUTRIDER_TABLE=schema.table"},
	} {
		d.environ = append(d.environ[:2:2], "OUTRIDER_TABLE="+table)
		d.refused(1, parts, "retry", id1)
		d.refused(1, parts, "retry", "--all")
	}
	d.environ = d.environ[:2]

	// A table of another name that is the same is as good.
	d.exec(`CREATE TABLE public."Events 2" (LIKE outbox.events INCLUDING ALL)`)
	d.environ = append(d.environ[:2:2], "OUTRIDER_TABLE=public.Events 2")
	d.works("retry", id1)
	if n := d.text(`SELECT count(*)::text FROM public."Events 2" WHERE id = $1::text::uuid`, id1); n != "1" || d.event(id1) != "none" {
		t.Errorf("%s rows in the other table, %q in outbox.events", n, d.event(id1))
	}
	d.environ = d.environ[:2]

	// In mode self-delete rows pass through the log and are gone.
	d.exec(`UPDATE outbox.settings SET value = 'self-delete' WHERE name = 'mode'`)
	d.makeReader()
	d.refuse(id2, "P.2", stateSkipped, "")
	d.works("retry", id2)
	if got := d.event(id2); got != "none" || d.streamed(id2) != "1" {
		t.Errorf("event in the table: %q; streamed %s times", got, d.streamed(id2))
	}
}

// TestDeadletterRoles: a relay's grants answer and drop, a relay's and an application's retry.
func TestDeadletterRoles(t *testing.T) {
	d := newDeadOutbox(t)
	d.exec(`CREATE ROLE "only relay"; CREATE ROLE only_app; CREATE ROLE "op-s"`)
	admin := d.environ
	if code, _, stderr := migrateLine(t, admin, "up", "--only", "roles", "--roles", "relay=only relay,app=only_app"); code != 0 {
		t.Fatal(stderr)
	}
	become := func(role string) {
		u, err := url.Parse(d.url)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("options", "-c role="+strings.ReplaceAll(role, " ", `\ `))
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // libpq knows no + for a space
		d.environ = []string{"OUTRIDER_DATABASE_URL=" + u.String(), "OUTRIDER_NAME=test"}
	}
	d.refuse(id1, "P.1", stateHalted, "")
	d.refuse(id2, "P.2", stateHalted, "")
	d.refuse(id3, "P.3", stateSkipped, "")
	d.refuse(id4, "P.4", stateSkipped, "")
	d.exec(`INSERT INTO outbox.events (id, topic) VALUES ($1, 'orders')`, id3)

	become("only relay")
	d.works("list")
	d.works("show", id1)
	d.works("divert", id1)
	d.works("skip", id2)
	d.works("drop", id4)
	d.refused(1, []string{"permission denied", "outrider migrate up --only roles --roles relay='only relay',app='only relay'"}, "retry", id3)

	become("only_app")
	for _, args := range [][]string{{"list"}, {"show", id3}, {"skip", id1}, {"retry", id3}, {"drop", id3}} {
		d.refused(1, []string{"permission denied", "OUTRIDER_DATABASE_URL of the owner of the tables"}, args...)
	}

	become("op-s")
	d.refused(1, []string{"permission denied", "outrider migrate up --only roles --roles relay=op-s,app=op-s"}, "retry", id3)
	if code, _, stderr := migrateLine(t, admin, "up", "--only", "roles", "--roles", "relay=op-s,app=op-s"); code != 0 {
		t.Fatal(stderr)
	}
	d.works("retry", id3)
	if got := d.event(id3); got != `orders | k | Paid | json {"n": 1} | {"a": "1"}` {
		t.Errorf("event is %q", got)
	}
}
