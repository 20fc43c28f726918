package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// deadOutbox is a migrated database with rows that Kafka refused, as a relay
// with slot outrider_test writes them.
type deadOutbox struct {
	*pgx.Conn
	t       *testing.T
	url     string
	environ []string
}

func newDeadOutbox(t *testing.T) *deadOutbox {
	t.Helper()
	return deadOutboxIn(t, postgres.Start(t, 0).URL())
}

func deadOutboxIn(t *testing.T, url string) *deadOutbox {
	t.Helper()
	d := &deadOutbox{t: t, url: url, environ: []string{"OUTRIDER_DATABASE_URL=" + url, "OUTRIDER_NAME=test"}}
	if code, _, stderr := migrateLine(t, d.environ, "up"); code != 0 {
		t.Fatal(stderr)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	d.Conn = conn
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return d
}

func (d *deadOutbox) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// text is the one value of a query, as text.
func (d *deadOutbox) text(sql string, args ...any) string {
	d.t.Helper()
	var s *string
	if err := d.QueryRow(d.t.Context(), sql, args...).Scan(&s); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return "<null>"
	}
	return *s
}

// refuse writes a row as the relay does; what differs from the usual is set by an SQL list of assignments.
func (d *deadOutbox) refuse(id, position, state, set string) {
	d.t.Helper()
	d.exec(`INSERT INTO outbox.dead (slot, source, position, id, state, reason, topic, key, type, value, headers, committed_at)
VALUES ('outrider_test', '7.1.outrider_test.0', $2, $1, $3, 'too large for topic orders', 'orders', 'k', 'Paid', '{"n": 1}', '{"a": "1"}', now())`, id, position, state)
	if set != "" {
		d.exec(`UPDATE outbox.dead SET `+set+` WHERE position = $1`, position)
	}
}

// states are the rows that are left: position and state.
func (d *deadOutbox) states() string {
	return d.text(`SELECT coalesce(string_agg(position || ' ' || state, ', ' ORDER BY position), '') FROM outbox.dead`)
}

func (d *deadOutbox) deadletter(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	return deadletterLine(d.t, d.environ, args...)
}

func deadletterLine(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), process{environ: environ, stdout: &out, stderr: &errs}, append([]string{"deadletter"}, args...))
	return code, out.String(), errs.String()
}

// works fails the test unless the command does, and returns what it wrote.
func (d *deadOutbox) works(args ...string) string {
	d.t.Helper()
	code, stdout, stderr := d.deadletter(args...)
	if code != 0 {
		d.t.Fatalf("deadletter %q: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// refused fails the test unless the command leaves with that code, says all parts, and changes nothing.
func (d *deadOutbox) refused(want int, parts []string, args ...string) {
	d.t.Helper()
	const everything = `SELECT concat((SELECT jsonb_agg(d ORDER BY d.position) FROM outbox.dead d), (SELECT jsonb_agg(e ORDER BY e.seq) FROM outbox.events e))`
	before := d.text(everything)
	code, stdout, stderr := d.deadletter(args...)
	if code != want || stdout != "" {
		d.t.Errorf("deadletter %q: exit code %d, want %d, stdout %q", args, code, want, stdout)
	}
	for _, part := range parts {
		if !strings.Contains(stderr, part) {
			d.t.Errorf("deadletter %q does not say %q:\n%s", args, part, stderr)
		}
	}
	if diff := cmp.Diff(before, d.text(everything)); diff != "" {
		d.t.Errorf("deadletter %q was refused and changed rows (-before +after):\n%s", args, diff)
	}
}

// Ids as the events table makes them.
const (
	id1 = "01997d3c-0000-7000-8000-000000000001"
	id2 = "01997d3c-0000-7000-8000-000000000002"
	id3 = "01997d3c-0000-7000-8000-000000000003"
	id4 = "01997d3c-0000-7000-8000-000000000004"
	id5 = "01997d3c-0000-7000-8000-000000000005"
)

func TestDeadletterList(t *testing.T) {
	d := newDeadOutbox(t)
	if out := d.works("list"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "ID ") {
		t.Errorf("empty list:\n%s", out)
	}
	if out := d.works("list", "--output", "json"); out != "[]\n" {
		t.Errorf("empty list in JSON: %q", out)
	}
	d.refuse(id1, "P.1", stateHalted, `created_at = now() - interval '90 seconds'`)
	d.refuse(id2, "P.2", stateSkipped, `value = NULL, headers = NULL, type = NULL, key = NULL, created_at = now() - interval '1 hour'`)
	d.refuse("", "P.3", stateDeadLettered, `reason = E'two\nlines\tand \x1b[31mcolour'`)
	d.refuse("someone-elses", "P.4", stateHalted, `slot = 'other'`)

	out := d.works("list")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], id2+"  skipped        orders  P.2       0     1h0m0s  too large for topic orders") ||
		!strings.HasPrefix(lines[2], id1+"  halted         orders  P.1       23    1m3") || !strings.HasPrefix(lines[3], "- ") ||
		!strings.HasSuffix(lines[3], "two lines and  [31mcolour") || strings.Contains(out, "\x1b") {
		t.Errorf("list:\n%s", out)
	}
	if _, _, stderr := d.deadletter("list"); !strings.Contains(stderr, "other slots have 1: outrider deadletter list --all-slots") {
		t.Errorf("other slots are not mentioned: %q", stderr)
	}
	if out := d.works("list", "--all-slots"); !strings.HasPrefix(out, "SLOT ") || !strings.Contains(out, "\nother          someone-elses  ") {
		t.Errorf("all slots:\n%s", out)
	}
	if out := d.works("list", "--state", "halted,skipped"); strings.Count(out, "\n") != 3 || strings.Contains(out, "P.3") {
		t.Errorf("two states:\n%s", out)
	}

	var rows []deadRow
	if err := json.Unmarshal([]byte(d.works("list", "--output", "json", "--all-slots")), &rows); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rows, func(r deadRow) bool { return r.Position == "P.1" })
	if len(rows) != 4 || i < 0 {
		t.Fatalf("JSON: %+v", rows)
	}
	r := rows[i]
	if r.Slot != "outrider_test" || r.Source != "7.1.outrider_test.0" || r.ID != id1 || r.State != stateHalted || r.Topic != "orders" ||
		r.Reason != "too large for topic orders" || r.Size != 23 || r.Age < 90 || r.CreatedAt.IsZero() || r.UpdatedAt.IsZero() {
		t.Errorf("JSON: %+v", r)
	}
	d.refused(78, []string{`--output "yaml": text or json`}, "list", "--output", "yaml")
	d.refused(78, []string{`--state "dead": halted, divert, skip, dead-lettered, skipped`}, "list", "--state", "dead")
}

func TestDeadletterShow(t *testing.T) {
	d := newDeadOutbox(t)
	d.refuse(id1, "P.1", stateHalted, `committed_at = '2026-01-02 03:04:05.678901+00'`)
	d.refuse(id2, "P.2", stateSkipped, `value = '\x00ff1b'::bytea, headers = NULL, key = NULL, type = '', committed_at = NULL`)
	d.refuse(id3, "P.3", stateSkipped, `value = NULL, key = E'\x1b[2J'`)
	d.refuse(id4, "P.4", stateSkipped, `value = ''`)
	d.refuse(id5, "P.5", stateSkipped, `value = convert_to(E'clear \x1b[2J', 'UTF8')`)
	for id, parts := range map[string][]string{
		id1: {
			"id:           " + id1 + "\n", "state:        halted\n", "reason:       too large for topic orders\n", "topic:        orders\n", "key:          k\n",
			"type:         Paid\n", `headers:      {"a": "1"}` + "\n", "slot:         outrider_test\n", "source:       7.1.outrider_test.0\n", "position:     P.1\n",
			"committed at: 2026-01-02T03:04:05.678901Z\n", "refused at:   20", "changed at:   20", "value:        8 bytes\n\n{\"n\": 1}\n",
		},
		"P.1": {"id:           " + id1 + "\n"},
		id2:   {"key:          -\n", "type:         \"\"\n", "headers:      -\n", "committed at: -\n", "value:        3 bytes, in base64\n\nAP8b\n"},
		id3:   {`key:          "\x1b[2J"` + "\n", "value:        tombstone\n"},
		id4:   {"value:        0 bytes\n"},
		id5:   {"value:        10 bytes, in base64\n\nY2xlYXIgG1sySg==\n"},
	} {
		out := d.works("show", id)
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("show %s lacks %q:\n%s", id, part, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("show %s talks to the terminal: %q", id, out)
		}
	}
	for id, want := range map[string]string{id1: `{"n": 1}`, id2: "\x00\xff\x1b", id3: "", id4: ""} {
		if out := d.works("show", "--value", id); out != want {
			t.Errorf("value of %s: %q, want %q", id, out, want)
		}
	}
	if _, _, stderr := d.deadletter("show", "--value", id3); !strings.Contains(stderr, "tombstone") {
		t.Errorf("a tombstone looks like an empty value: %q", stderr)
	}

	// After a recovery the same event was refused at another place.
	d.refuse(id1, "Q.1", stateHalted, `source = '7.1.outrider_test.1'`)
	if out := d.works("show", id1); strings.Count(out, "value:") != 2 || !strings.Contains(out, "P.1") || !strings.Contains(out, "Q.1") {
		t.Errorf("show an event with two rows:\n%s", out)
	}
	if out := d.works("show", "--value", id1); out != `{"n": 1}` {
		t.Errorf("value of an event with two rows: %q", out)
	}
	d.exec(`UPDATE outbox.dead SET value = '2' WHERE position = 'Q.1'`)
	d.refused(1, []string{"2 rows with different values", "outrider deadletter list"}, "show", "--value", id1)

	d.refused(1, []string{`no refused row has the id or position "nobody"`, "hint: ", "outrider deadletter list"}, "show", "nobody")
	d.exec(`UPDATE outbox.dead SET slot = 'other' WHERE position = 'P.2'`)
	d.refused(1, []string{`slot "other" has one`, "OUTRIDER_SLOT=other"}, "show", id2)
}

func TestDeadletterAnswers(t *testing.T) {
	for _, answer := range []string{stateDivert, stateSkip} {
		t.Run(answer, func(t *testing.T) {
			d := newDeadOutbox(t)
			d.refuse(id1, "P.1", stateHalted, `updated_at = 'epoch'`)
			d.refuse("", "P.2", stateHalted, "")
			d.refuse(id3, "P.3", stateHalted, "")
			d.refuse(id4, "P.4", stateHalted, `slot = 'other'`)
			d.refuse(id5, "P.5", stateDeadLettered, "")

			d.refused(1, []string{`"nobody"`, "outrider deadletter list"}, answer, id1, "nobody")
			d.refused(1, []string{id5 + " is dead-lettered", "outrider deadletter retry " + id5, "outrider deadletter drop " + id5}, answer, id1, id5)
			d.refused(1, []string{`slot "other" has one`}, answer, id4)
			d.refused(78, []string{"an id is empty"}, answer, "")
			d.refused(78, []string{"requires at least 1 arg"}, answer)

			if out := d.works(answer, id1, "P.2"); !strings.Contains(out, answer+" "+id1+" at P.1: ") || !strings.Contains(out, answer+" P.2 at P.2: ") {
				t.Errorf("%s says:\n%s", answer, out)
			}
			if want := "P.1 " + answer + ", P.2 " + answer + ", P.3 halted, P.4 halted, P.5 dead-lettered"; d.states() != want {
				t.Errorf("%s left %q, want %q", answer, d.states(), want)
			}
			if d.text(`SELECT (updated_at > now() - interval '1 minute')::text FROM outbox.dead WHERE position = 'P.1'`) != "true" {
				t.Error("updated_at did not move")
			}
			// Not even the other answer: the relay may be at it.
			for _, again := range []string{stateDivert, stateSkip} {
				d.refused(1, []string{id1 + " was answered with " + answer, "outrider status"}, again, id1)
			}
			d.exec(`UPDATE outbox.dead SET state = 'skipped' WHERE position = 'P.1'`)
			d.refused(1, []string{id1 + " is skipped"}, answer, id1)

			// An event that stands at two places is answered where the relay waits.
			d.refuse(id1, "Q.1", stateHalted, `source = '7.1.outrider_test.1'`)
			d.works(answer, id1)
			if want := "P.1 skipped, P.2 " + answer + ", P.3 halted, P.4 halted, P.5 dead-lettered, Q.1 " + answer; d.states() != want {
				t.Errorf("%s left %q, want %q", answer, d.states(), want)
			}
		})
	}
}

func TestDeadletterDrop(t *testing.T) {
	d := newDeadOutbox(t)
	d.refuse(id1, "P.1", stateHalted, "")
	d.refuse(id2, "P.2", stateDivert, "")
	d.refuse(id3, "P.3", stateDeadLettered, "")
	d.refuse("", "P.4", stateSkipped, "")
	d.refuse(id4, "P.5", stateSkipped, `slot = 'other'`)
	d.refuse(id5, "P.6", stateSkipped, "")

	d.refused(78, []string{"--all"}, "drop")
	d.refused(78, []string{"not both"}, "drop", "--all", id3)
	d.refused(1, []string{"remove 3 rows of slot outrider_test for good", "outrider deadletter drop --all --yes"}, "drop", "--all")
	d.refused(1, []string{`"nobody"`}, "drop", id3, "nobody")
	d.refused(1, []string{id1 + " at P.1 is halted", "outrider deadletter divert " + id1, "outrider deadletter skip " + id1}, "drop", id3, id1)
	d.refused(1, []string{id2 + " at P.2 was answered with divert"}, "drop", id3, "P.2")
	d.refused(1, []string{`slot "other" has one`}, "drop", id4)

	if out := d.works("drop", id3); out != "dropped 1\n" {
		t.Errorf("drop says %q", out)
	}
	if out := d.works("drop", "--all", "--yes"); out != "dropped 2\n" {
		t.Errorf("drop --all says %q", out)
	}
	if want := "P.1 halted, P.2 divert, P.5 skipped"; d.states() != want {
		t.Errorf("left %q, want %q", d.states(), want)
	}
}

// TestDeadletterHintsCanBePasted: an application chooses ids, and a hint with one must not run what it says.
func TestDeadletterHintsCanBePasted(t *testing.T) {
	d := newDeadOutbox(t)
	d.refuse("x'; reboot", "P.1", stateHalted, "")
	d.refuse("\x1b[2J", "P.2", stateHalted, "")
	d.refused(1, []string{`outrider deadletter divert 'x'\''; reboot'` + "\n"}, "drop", "P.1")
	d.refused(1, []string{"row P.2 at P.2 is halted", "outrider deadletter skip P.2\n"}, "drop", "P.2")
}

// TestDeadletterAnswerMeetsTheRelay: the relay changes the row while a person
// answers; whoever comes second sees what the first has done.
func TestDeadletterAnswerMeetsTheRelay(t *testing.T) {
	d := newDeadOutbox(t)
	for _, args := range [][]string{{"divert", id1}, {"skip", id1}, {"retry", id1}, {"drop", id1}} {
		d.exec(`DELETE FROM outbox.dead`)
		from, to, want := stateHalted, stateSkipped, id1+" is skipped"
		if args[0] == "retry" || args[0] == "drop" {
			from, to, want = stateSkipped, stateHalted, "is halted"
		}
		d.refuse(id1, "P.1", from, "")
		relays, err := pgx.Connect(t.Context(), d.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = relays.Close(context.Background()) })
		tx, err := relays.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `UPDATE outbox.dead SET state = $1`, to); err != nil {
			t.Fatal(err)
		}
		var code int
		var stderr string
		done := make(chan struct{})
		go func() {
			defer close(done)
			code, _, stderr = deadletterLine(t, d.environ, args...)
		}()
		d.awaitLockWait(done)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-done
		if code != 1 || !strings.Contains(stderr, want) || d.states() != "P.1 "+to {
			t.Errorf("%q: exit code %d, left %q\n%s", args, code, d.states(), stderr)
		}
	}
}

// awaitLockWait returns when a statement waits for a lock, and fails the test if done comes first.
func (d *deadOutbox) awaitLockWait(done <-chan struct{}) {
	d.t.Helper()
	for d.text(`SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'`) == "0" {
		select {
		case <-done:
			d.t.Fatal("the command did not wait for the relay's transaction")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestDeadletterWithoutTable: an older installation is told what it lacks.
func TestDeadletterWithoutTable(t *testing.T) {
	d := newDeadOutbox(t)
	d.exec(`DROP TABLE outbox.dead CASCADE`)
	for _, args := range [][]string{{"list"}, {"show", "x"}, {"divert", "x"}, {"skip", "x"}, {"retry", "x"}, {"retry", "--all"}, {"drop", "x"}, {"drop", "--all", "--yes"}} {
		code, _, stderr := d.deadletter(args...)
		if code != 1 || !strings.Contains(stderr, `"outbox.dead" does not exist`) || !strings.Contains(stderr, "outrider migrate up") {
			t.Errorf("deadletter %q: exit code %d\n%s", args, code, stderr)
		}
	}
	if code, stdout, _ := migrateLine(t, d.environ, "status"); code != 1 || !strings.Contains(stdout, `gone: TABLE "outbox".dead`) {
		t.Errorf("migrate status: exit code %d\n%s", code, stdout)
	}
	if code, stdout, stderr := migrateLine(t, d.environ, "up"); code != 0 || stdout != "applied 008_dead\napplied 018_health\n" {
		t.Fatalf("migrate up: exit code %d\n%s%s", code, stdout, stderr)
	}
	d.works("list")
}
