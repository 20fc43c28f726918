package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

const reasonGate = "gate_waiting"

// gated is the configuration of a relay that publishes visible rows only. Its
// timeout is short, so that a hold of seconds outlives connection and lease.
func (w *world) gated() relay.Config {
	cfg := w.config()
	cfg.Gate, cfg.WALSenderTimeout = relay.GateVisible, time.Second
	return cfg
}

// withholdCommits has commits wait for a synchronous standby that does not
// exist, until the function that it returns is called.
func (w *world) withholdCommits() (release func()) {
	w.t.Helper()
	w.syncNames("absent")
	w.awaitHeld(true)
	return func() { w.t.Helper(); w.syncNames(""); w.awaitHeld(false) }
}

func (w *world) awaitHeld(held bool) {
	w.t.Helper()
	await(w.t, func() error {
		if now := w.holds(); now != held {
			return fmt.Errorf("that commits are held is %t", now)
		}
		return nil
	})
}

func (w *world) syncNames(names string) {
	w.t.Helper()
	w.exec(`ALTER SYSTEM SET synchronous_standby_names = '` + names + `'`)
	w.exec(`SELECT pg_reload_conf()`)
	await(w.t, func() error {
		if now := w.text(`SHOW synchronous_standby_names`); now != names {
			return fmt.Errorf("synchronous_standby_names is %q", now)
		}
		return nil
	})
}

// holds reports whether a commit waits for a standby. What sessions show is not
// what counts: the checkpointer tells all of them, when it comes to it.
func (w *world) holds() bool {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.pg.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = conn.Exec(ctx, `SELECT pg_logical_emit_message(true, 'test', '')`, pgx.QueryExecModeSimpleProtocol)
	_ = conn.Close(w.t.Context())
	await(w.t, func() error { // not to be taken for a commit of the test's
		if n := w.text(`SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1`, conn.PgConn().PID()); n != "0" {
			return errors.New("the session that tried is there")
		}
		return nil
	})
	return err != nil
}

// commitHeld runs SQL whose commit hangs, and returns when it hangs. Its session
// ends with the test.
func (w *world) commitHeld(sql ...string) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.pg.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range sql {
			if _, err := conn.Exec(ctx, s, pgx.QueryExecModeSimpleProtocol); err != nil {
				return // a server that stops, or the end of the test; what was committed the test sees elsewhere
			}
		}
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
		_ = conn.Close(ctx)
	})
	await(w.t, func() error {
		if n := w.text(`SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); n == "0" {
			return fmt.Errorf("no commit waits for a standby")
		}
		return nil
	})
}

// writeLocal commits without waiting for a standby.
func (w *world) writeLocal(ns ...int) {
	w.t.Helper()
	w.exec(`SET synchronous_commit = local`)
	w.write(ns...)
}

func (r *running) awaitGate(waiting bool) {
	r.t.Helper()
	await(r.t, func() error {
		s := r.Status()
		if slices.ContainsFunc(s.Conditions, func(c relay.Condition) bool { return c.Reason == reasonGate }) != waiting {
			return fmt.Errorf("conditions %v, role %s, error %q", s.Conditions, s.Role, s.Error)
		}
		return nil
	})
}

func insertSQL(n int) string {
	return fmt.Sprintf(`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '%d')`, n)
}

// A commit that waits for a synchronous standby is decoded, and not visible:
// with the gate it is published when it becomes visible, in its place in the
// order of commits, whatever ends the wait and however it was committed.
func TestGateHoldsWhatNobodySees(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major, "max_prepared_transactions=5")
		r := w.start(w.gated(), &memory{})
		r.awaitRole(relay.RoleLeader, "")
		w.writeLocal(1)
		r.awaitValues("1")

		release := w.withholdCommits()
		w.commitHeld(insertSQL(2))
		w.writeLocal(3) // visible, and behind the other
		walsender := w.text(`SELECT active_pid::text FROM pg_replication_slots`)
		r.awaitGate(true)
		r.outlive(3 * time.Second)
		r.awaitValues("1")
		if r.Status().OldestUnpublished == nil {
			t.Error("the transaction that is held does not count as unpublished")
		}
		if now := w.text(`SELECT active_pid::text FROM pg_replication_slots`); now != walsender {
			t.Errorf("walsender was %s and is %s: the connection did not outlive the wait", walsender, now)
		}
		release()
		r.awaitValues("1", "2", "3")
		r.awaitGate(false)

		// A wait that is cancelled leaves the transaction committed; its rows are a subtransaction's.
		release = w.withholdCommits()
		w.commitHeld(`BEGIN; SAVEPOINT a; ` + insertSQL(4) + `; RELEASE a; COMMIT`)
		r.awaitGate(true)
		r.awaitValues("1", "2", "3")
		w.exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
		r.awaitValues("1", "2", "3", "4")

		// A prepared transaction has its rows under the id it was prepared with.
		w.exec(`SET synchronous_commit = local`)
		w.exec(`BEGIN`)
		w.exec(insertSQL(6))
		w.exec(`PREPARE TRANSACTION 'p'`)
		w.writeLocal(5)
		w.commitHeld(`COMMIT PREPARED 'p'`)
		r.awaitGate(true)
		r.awaitValues("1", "2", "3", "4", "5")
		release()
		r.awaitValues(numbers(6)...)
	})
}

// Without the gate the same row is published although nobody can read it: the
// tests of the gate would notice if it did nothing.
func TestWithoutGateARowComesBeforeItIsVisible(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	release := w.withholdCommits()
	w.commitHeld(insertSQL(1))
	r.awaitValues("1")
	if n := w.text(`SELECT count(*)::text FROM outbox.events`); n != "0" {
		t.Errorf("%s rows are visible: the commit is not held, and the test shows nothing", n)
	}
	release()
}

// outlive waits while nothing can be waited for: what must not happen.
func (r *running) outlive(spell time.Duration) {
	ctx, cancel := context.WithTimeout(r.t.Context(), spell)
	defer cancel()
	<-ctx.Done()
}

// A server can be stopped although the gate waits, with the socket unread and
// megabytes behind it. The commit that was held is one after the restart.
func TestServerStopsWhileTheGateWaits(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		cfg := w.gated()
		cfg.WALSenderTimeout = 15 * time.Second
		r := w.start(cfg, &memory{})
		r.awaitRole(relay.RoleLeader, "")
		w.withholdCommits()
		w.commitHeld(insertSQL(1))
		r.awaitGate(true)
		w.exec(`SET synchronous_commit = local`)
		w.exec(`INSERT INTO outbox.events (topic, key, payload, headers) SELECT 't', 'k', to_json(i), jsonb_build_object('fill', repeat('x', 2000)) FROM generate_series(2, $1::int) i`, bulk)
		slot := w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`)
		_ = w.db.Close(t.Context())

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := w.pg.Stop(ctx, postgres.Fast); err != nil {
			t.Fatalf("fast stop: %v", err)
		}
		t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
		if err := w.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.db = postgres.Connect(t, w.pg.URL())
		if now := w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`); now != slot {
			t.Errorf("slot was at %s and is at %s, but nothing was settled", slot, now)
		}
		r.awaitValues(numbers(bulk)...)
	})
}

// A relay can be stopped although the gate waits: what the sink has is
// confirmed, the leadership is given back, and the next relay waits again.
func TestRelayStopsWhileTheGateWaits(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.gated(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.writeLocal(1)
	r.awaitValues("1")
	release := w.withholdCommits()
	w.commitHeld(insertSQL(2))
	r.awaitGate(true)
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 4*time.Second { // SHUTDOWN_TIMEOUT is 5 s
		t.Errorf("the stop took %s", took)
	}
	if released := w.text(`SELECT released::text FROM outbox.relays`); released != "true" {
		t.Error("the leadership was not given back")
	}
	next := w.start(w.gated(), &memory{})
	next.awaitRole(relay.RoleLeader, "")
	next.awaitGate(true)
	if got := next.sink.values(); len(got) > 0 {
		t.Errorf("published %v: one is confirmed, and the other not visible", got)
	}
	release()
	next.awaitValues("2")
}

// Budget and gate wait for different things, and neither for the other.
func TestGateBehindAFullBudget(t *testing.T) {
	w := newWorld(t, 18)
	cfg := w.gated()
	cfg.MaxInFlightBytes = 1 << 20
	r := w.start(cfg, &memory{holds: true})
	pid := w.fillBudget(r)
	release := w.withholdCommits()
	w.commitHeld(insertSQL(bulk + 1))
	w.exec(`SET synchronous_commit = local`)
	w.write(bulk + 2)
	r.sink.hold(false)
	r.awaitValues(numbers(bulk)...)
	r.awaitGate(true)
	r.sink.hold(true)
	r.outlive(3 * cfg.WALSenderTimeout)
	r.awaitValues(numbers(bulk)...)
	release()
	await(t, func() error {
		if s := r.Status(); s.InFlightRows != 2 {
			return fmt.Errorf("%d rows in flight, want the two from behind the gate", s.InFlightRows)
		}
		return nil
	})
	r.sink.hold(false)
	r.awaitValues(numbers(bulk + 2)...)
	if now := w.text(`SELECT active_pid::text FROM pg_replication_slots`); now != pid {
		t.Errorf("walsender was %s and is %s", pid, now)
	}
}

// The gate's connection is a link of its own: lost, it is opened again, and
// until then nothing passes.
func TestGateConnectionLost(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.gated(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	release := w.withholdCommits()
	w.commitHeld(insertSQL(1))
	r.awaitGate(true)
	const gates = `FROM pg_stat_activity WHERE query LIKE 'SELECT pg_current_snapshot()::text FROM%'`
	var first string
	await(t, func() error {
		if first = w.text(`SELECT coalesce(max(pid)::text, '') ` + gates); first == "" {
			return errors.New("the gate does not look")
		}
		return nil
	})
	walsender := w.text(`SELECT active_pid::text FROM pg_replication_slots`)
	w.exec(`SELECT pg_terminate_backend(pid) ` + gates)
	await(t, func() error {
		if now := w.text(`SELECT coalesce(max(pid)::text, '') ` + gates); now == "" || now == first {
			return fmt.Errorf("gate's connection was %s and is %q", first, now)
		}
		return nil
	})
	r.awaitValues()
	release()
	r.awaitValues("1")
	if now := w.text(`SELECT active_pid::text FROM pg_replication_slots`); now != walsender {
		t.Errorf("walsender was %s and is %s", walsender, now)
	}
}

// A server of age has transaction ids above 32 bits, of which Begin brings 32.
func TestGateInALaterEpoch(t *testing.T) {
	w := newWorld(t, 15)
	w.laterEpoch()
	r := w.start(w.gated(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.writeLocal(1)
	r.awaitValues("1")
	release := w.withholdCommits()
	w.commitHeld(insertSQL(2))
	r.awaitGate(true)
	r.awaitValues("1")
	release()
	r.awaitValues("1", "2")
}

// laterEpoch lets transaction ids go on in the fourth epoch. Where pg_resetwal
// is not at hand they stay in the first.
func (w *world) laterEpoch() {
	w.t.Helper()
	if _, err := w.pg.Tool("pg_resetwal"); errors.Is(err, postgres.ErrNoTool) {
		w.t.Log("no pg_resetwal: ", err)
		return
	}
	if err := w.pg.Stop(w.t.Context(), postgres.Fast); err != nil {
		w.t.Fatal(err)
	}
	if err := w.pg.ResetWAL(w.t.Context(), "--epoch=3"); err != nil {
		w.t.Fatal(err)
	}
	if err := w.pg.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.db = postgres.Connect(w.t, w.pg.URL())
	if epoch := w.text(`SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::bigint >> 32)::text`); epoch != "3" {
		w.t.Fatalf("the epoch is %s", epoch)
	}
}

// Commits that come to wait for the relay while it runs wait for what waits for
// them. The relay says so, and goes on when the list is mended.
func TestGateWaitsForACommitThatWaitsForTheRelay(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.gated(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.writeLocal(1)
	r.awaitValues("1")
	w.syncNames("absent")
	w.commitHeld(insertSQL(2))
	r.awaitGate(true)
	w.syncNames("*")
	r.awaitRole(relay.RoleHalted, "synchronous_standby")
	r.awaitGate(false)
	w.syncNames("")
	r.awaitValues("1", "2")
}

// A primary that is lost takes along what its synchronous standby has not got.
// With the gate nobody was told of it; without, an event tells of a row that
// never was.
func TestGateTellsOfNothingThatAFailoverTakes(t *testing.T) {
	for _, gate := range []string{relay.GateVisible, relay.GateNone} {
		t.Run(gate, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 18)
			standby := w.pg.StartStandby(t, "phys")
			cfg := w.gated()
			cfg.Gate = gate
			urls := strings.Replace(w.pg.URL(), fmt.Sprintf(":%d", w.pg.Port()), fmt.Sprintf(":%d,127.0.0.1:%d", w.pg.Port(), standby.Port()), 1)
			cfg.DatabaseURL = secret.New(urls + sep(urls) + "target_session_attrs=read-write")
			r := w.start(cfg, &memory{})
			r.awaitRole(relay.RoleLeader, "")
			w.syncNames("phys")
			w.write(1)
			r.awaitValues("1")
			on := postgres.Connect(t, standby.URL())
			for _, sql := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
				if _, err := on.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			await(t, func() error {
				if n := w.text(`SELECT count(*)::text FROM pg_stat_replication WHERE application_name = 'phys'`); n != "0" {
					return errors.New("the standby still receives")
				}
				return nil
			})
			w.commitHeld(insertSQL(2))
			if gate == relay.GateVisible {
				r.awaitGate(true)
			} else {
				r.awaitValues("1", "2")
			}
			if err := w.pg.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.awaitTimeline(2)
			w.db = postgres.Connect(t, standby.URL())
			w.write(3)
			await(t, func() error {
				if got := r.sink.values(); !slices.Contains(got, "3") {
					return fmt.Errorf("%v, status %+v", got, r.Status())
				}
				return nil
			})
			if n := w.text(`SELECT count(*)::text FROM outbox.events WHERE payload::text = '2'`); n != "0" {
				t.Fatal("the standby had the row: the test shows nothing")
			}
			if told := slices.Contains(r.sink.values(), "2"); told != (gate == relay.GateNone) {
				t.Errorf("events %v, with gate %s", r.sink.values(), gate)
			}
		})
	}
}

func TestGateConfiguration(t *testing.T) {
	w := relay.Config{Publication: "p", Schema: "s", Table: "a.b", MaxInFlightBytes: 1 << 20, WALSenderTimeout: time.Second, ShutdownTimeout: time.Second}
	for _, c := range []struct {
		gate  string
		sync  bool
		wrong string // part of the error; "" for none
	}{
		{"", true, ""},
		{relay.GateNone, true, ""},
		{relay.GateVisible, false, ""},
		{relay.GateVisible, true, "OUTRIDER_ALLOW_SYNC"},
		{"Visible", false, `OUTRIDER_GATE="Visible"`},
	} {
		w.Gate, w.AllowSync = c.gate, c.sync
		switch err := w.Validate(); {
		case c.wrong == "" && err != nil:
			t.Errorf("gate %q, sync %t: %v", c.gate, c.sync, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("gate %q, sync %t: %v, want it to name %s", c.gate, c.sync, err, c.wrong)
		}
	}
}
