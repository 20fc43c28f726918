package relay_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
)

// Scheduled events come once, not before they are due, in the order in which
// they are due, whatever happens to the sessions of the relay meanwhile.
func TestScheduledEvents(t *testing.T) {
	for _, mode := range []string{"append", "stream"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 18)
			w.setMode(mode)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			const events = 600
			// Written in no order: n is due n * 10 ms after the first.
			w.exec(`SELECT outbox.schedule(now() + interval '1 s' + n * interval '10 ms', 't', 'k', n::text, 'T', json_build_object('due', to_char(now() + interval '1 s' + n * interval '10 ms', 'YYYY-MM-DD HH24:MI:SS.US'))::jsonb)
FROM generate_series(1, $1::int) n ORDER BY md5(n::text)`, events)
			back := w.text(`SELECT outbox.schedule(now() + interval '2 s', 't', 'k', '-1')::text`)
			w.exec(`BEGIN; SELECT outbox.schedule(now(), 't', 'k', '-1'); ROLLBACK`)
			if got := w.text(`SELECT outbox.unschedule($1::text::uuid) || ' ' || outbox.unschedule($1::text::uuid)`, back); got != "true false" {
				t.Errorf("taken back, twice: %s", got)
			}
			db := postgres.Connect(t, w.pg.URL())
			for n := 100; n < events; n += 100 {
				await(t, func() error {
					if got := len(r.sink.events()); got < n {
						return fmt.Errorf("%d of %d", got, n)
					}
					return nil
				})
				if _, err := db.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'outrider/%'`); err != nil {
					t.Fatal(err)
				}
			}
			await(t, func() error {
				if got := len(r.sink.events()); got < events {
					return fmt.Errorf("%d of %d", got, events)
				}
				return nil
			})
			var got, want []string
			for i, e := range r.sink.events() {
				got, want = append(got, e.value), append(want, fmt.Sprint(i+1))
				_, headers, _ := strings.Cut(e.headers, "due=")
				due, err := time.Parse("2006-01-02 15:04:05.000000", headers[:26])
				_, stamp, _ := strings.Cut(e.headers, "outrider-committed-at=")
				committed, err2 := time.Parse("2006-01-02T15:04:05.000000Z", stamp[:27])
				if err != nil || err2 != nil || committed.Before(due) {
					t.Errorf("event %s was committed at %s, and due at %s (%v, %v)", e.value, committed, due, err, err2)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if left := w.text(`SELECT count(*)::text FROM outbox.scheduled`); left != "0" {
				t.Errorf("%s are left", left)
			}
		})
	}
}

// Two that move at once, as a relay that was frozen and its successor may, move
// each event once. What somebody is taking back does not hold up the others.
func TestScheduledMovedAtOnce(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`SELECT outbox.schedule(now(), 't', 'k', n::text) FROM generate_series(1, 2000) n`)
	taking := postgres.Connect(t, w.pg.URL())
	if _, err := taking.Exec(t.Context(), `BEGIN; SELECT outbox.unschedule((SELECT id FROM outbox.scheduled ORDER BY due, id LIMIT 1))`); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 4 {
		db := postgres.Connect(t, w.pg.URL())
		go func() {
			left := 2
			var err error
			for left > 1 && err == nil { // one is being taken back
				if _, err = db.Exec(t.Context(), `SELECT outbox.publish_due(20)`); err == nil {
					err = db.QueryRow(t.Context(), `SELECT count(*) FROM outbox.scheduled`).Scan(&left)
				}
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if got := w.text(`SELECT count(*) || ' ' || count(DISTINCT payload::text) || ' ' || (SELECT count(*) FROM outbox.scheduled) FROM outbox.events`); got != "1999 1999 1" {
		t.Errorf("moved, different, left: %s", got)
	}
	if out := w.text(`SELECT count(*)::text FROM (SELECT payload::text::int - lag(payload::text::int) OVER (ORDER BY seq) AS step FROM outbox.events) s WHERE step < 1`); out != "0" {
		t.Errorf("%s out of order", out)
	}
}

// An installation from before the table, and a role that may not move, are told.
func TestScheduledWithoutGrant(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`CREATE ROLE streamer LOGIN REPLICATION`)
	if _, err := migrate.Up(t.Context(), w.db, migrate.Options{Roles: []migrations.Role{{Privilege: migrations.RelayRole, Name: "streamer"}}}); err != nil {
		t.Fatal(err)
	}
	w.exec(`REVOKE EXECUTE ON FUNCTION outbox.publish_due(integer) FROM streamer`)
	at, err := url.Parse(w.pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.User("streamer")
	cfg := w.config()
	cfg.DatabaseURL = secret.New(at.String())
	w.exec(`SELECT outbox.schedule(now(), 't', 'k', '1')`)
	r := w.start(cfg, &memory{})
	var told relay.Condition
	await(t, func() error {
		for _, c := range r.Status().Conditions {
			if c.Reason == "schedule" {
				told = c
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", r.Status().Conditions)
	})
	_, grant, ok := strings.Cut(told.Hint, "owner of the tables: ")
	if !ok {
		t.Fatalf("hint %q", told.Hint)
	}
	w.exec(grant)
	r.awaitValues("1")
	await(t, func() error {
		if c := r.Status().Conditions; len(c) > 0 {
			return fmt.Errorf("conditions %+v", c)
		}
		return nil
	})
}
