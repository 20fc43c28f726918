package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// streaming waits until the row says so.
func (r *running) awaitPhase(w *world, phase string) {
	r.t.Helper()
	r.awaitRole(relay.RoleLeader, "")
	await(r.t, func() error {
		if got := w.text(`SELECT max(phase) FROM outbox.relays`); got != phase {
			return fmt.Errorf("phase %q, want %s; status %+v", got, phase, r.Status())
		}
		return nil
	})
}

// awaitPublished waits for the mark that sees every row of the table.
func (r *running) awaitPublished(w *world) {
	r.t.Helper()
	await(r.t, func() error {
		if w.text(`SELECT pg_visible_in_snapshot((SELECT max(tx::text::bigint)::text::xid8 FROM outbox.events), published)::text FROM outbox.relays`) != "true" {
			return fmt.Errorf("published does not see all rows yet; status %+v", r.Status())
		}
		return nil
	})
}

// many commits n rows with payloads from..from+n-1.
func (w *world) many(from, n int) {
	w.t.Helper()
	w.exec(`INSERT INTO outbox.events (topic, key, payload, headers) SELECT 't', 'k', to_json(i), '{"h": "v"}' FROM generate_series($1::int, $2::int) i`, from, from+n-1)
}

func upTo(from, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(from+i))
	}
	return all
}

// Rows from before the first start are published in order, once, and look like
// streamed ones.
func TestFirstStartWithRows(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		w.many(1, 20_000)
		r := w.start(w.config(), &memory{})
		r.awaitPhase(w, "streaming")
		w.many(20_001, 10)
		r.awaitValues(upTo(1, 20_010)...)
		events := r.sink.events()
		backlog, stream := events[0], events[20_005]
		for _, name := range []string{"id=", "h=v", "outrider-position=", "outrider-source=", "outrider-committed-at="} {
			if !strings.Contains(backlog.headers, name) || !strings.Contains(stream.headers, name) {
				t.Errorf("header %s: backlog %q, stream %q", name, backlog.headers, stream.headers)
			}
		}
		if a, b := position(events[19_999].headers), position(stream.headers); a >= b || position(backlog.headers) >= a {
			t.Errorf("positions do not grow: %s, %s, %s", position(backlog.headers), a, b)
		}
	})
}

func position(headers string) string {
	_, rest, _ := strings.Cut(headers, "outrider-position=")
	text, _, _ := strings.Cut(rest, " ")
	return text
}

// Huge rows after tiny ones do not make a chunk larger than what is asked for.
func TestBacklogOfRowsOfVerySize(t *testing.T) {
	w := newWorld(t, 17)
	w.many(1, 5000)
	w.exec(`INSERT INTO outbox.events (topic, key, payload) SELECT 't', 'k', to_json(i || repeat('x', 900000)) FROM generate_series(1, 40) i`)
	w.many(5001, 5000)
	r := w.start(w.config(), &memory{})
	await(t, func() error {
		if n := len(r.sink.values()); n != 10_040 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	values := r.sink.values()
	if values[4999] != "5000" || values[5040] != "5001" || !strings.HasPrefix(values[5000], `"1x`) {
		t.Error("order is lost")
	}
}

// Every way to lose a slot is recovered from the table, without a word from anybody.
func TestLostSlotIsRecovered(t *testing.T) {
	for name, lose := range map[string]string{
		"dropped":  `SELECT pg_drop_replication_slot('outrider_test')`,
		"moved":    `SELECT pg_replication_slot_advance('outrider_test', pg_current_wal_lsn())`,
		"remade":   "SELECT pg_drop_replication_slot('outrider_test');\nSELECT pg_create_logical_replication_slot('outrider_test', 'pgoutput')",
		"unfilled": "DROP PUBLICATION outrider;\nINSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '3');\nCREATE PUBLICATION outrider FOR TABLE outbox.events WITH (publish = 'insert')",
		"left out": "ALTER PUBLICATION outrider DROP TABLE outbox.events;\nINSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', '3');\nALTER PUBLICATION outrider ADD TABLE outbox.events",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, major := range []int{14, 18} {
				w := newWorld(t, major)
				r := w.start(w.config(), &memory{})
				r.awaitRole(relay.RoleLeader, "")
				w.write(1)
				r.awaitValues("1")
				r.awaitPublished(w)
				sink := r.sink
				r.stop()
				w.write(2)
				w.execScript(lose)
				generation := w.text(`SELECT generation::text FROM outbox.relays`)
				r = w.start(w.config(), sink)
				want := []string{"1", "2"}
				if strings.Contains(lose, "'3'") {
					want = append(want, "3")
				}
				r.awaitValues(want...)
				r.awaitPhase(w, "streaming")
				w.write(4)
				r.awaitValues(append(want, "4")...)
				if now := w.text(`SELECT generation::text FROM outbox.relays`); now <= generation {
					t.Errorf("generation %s after %s", now, generation)
				}
				r.stop()
			}
		})
	}
}

// A publication that loses its table and gets it back under a living relay.
func TestLeftOutWhileStreaming(t *testing.T) {
	for _, major := range []int{14, 17, 18} {
		for name, drop := range map[string][2]string{
			"table":       {`ALTER PUBLICATION outrider DROP TABLE outbox.events`, `ALTER PUBLICATION outrider ADD TABLE outbox.events`},
			"publication": {`DROP PUBLICATION outrider`, `CREATE PUBLICATION outrider FOR TABLE outbox.events WITH (publish = 'insert')`},
			"operation":   {`ALTER PUBLICATION outrider SET (publish = 'update')`, `ALTER PUBLICATION outrider SET (publish = 'insert')`},
		} {
			t.Run(fmt.Sprint(name, " ", major), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, major)
				r := w.start(w.config(), &memory{})
				r.awaitPhase(w, "streaming")
				w.write(1)
				r.awaitValues("1")
				w.exec(drop[0])
				w.write(2)
				w.exec(drop[1])
				w.write(3)
				await(t, func() error {
					got := strings.Join(r.sink.values(), " ")
					if !strings.Contains(got, "2") || !strings.HasSuffix(got, "3") {
						return fmt.Errorf("arrived: %s", got)
					}
					return nil
				})
			})
		}
	}
}

// A row that reaches the table around the publication is found by the audit.
func TestAuditFindsWhatTheStreamDidNotBring(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			w.exec(`CREATE TABLE aside () INHERITS (outbox.events)`) // not in the publication
			await(t, func() error {
				if gather(t, r.registry)["outrider_audits_total"] < 1 {
					return fmt.Errorf("no audit yet")
				}
				return nil
			})
			w.exec(`INSERT INTO aside (id, topic, key, payload, seq) VALUES (gen_random_uuid(), 't', 'k', '2', 1000)`)
			await(t, func() error {
				if got := r.sink.values(); got[len(got)-1] != "2" {
					return fmt.Errorf("arrived: %v", got)
				}
				return nil
			})
			if n := gather(t, r.registry)["outrider_audit_mismatch_total more"]; n != 1 {
				t.Errorf("mismatch is %v", n)
			}
		})
	}
}

// A database that was set back under a living relay is refused until somebody decides.
func TestDatabaseThatWasSetBack(t *testing.T) {
	w := newWorld(t, 16)
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	w.exec(`UPDATE outbox.relays SET epoch = epoch - 1`)
	w.write(2)
	r.awaitRole(relay.RoleHalted, "database_rewound")
	sink := r.sink
	r.stop()
	r = w.start(w.config(), sink)
	r.awaitRole(relay.RoleLeader, "")
	w.write(3)
	await(t, func() error {
		if got := sink.values(); got[len(got)-1] != "3" {
			return fmt.Errorf("arrived: %v", got)
		}
		return nil
	})
}

// Rows of another server carry its transaction ids, which mean nothing here.
func TestRowsFromAnotherServer(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`ALTER TABLE outbox.events DISABLE TRIGGER own_tx`) // a restore makes triggers after the data
	w.exec(`INSERT INTO outbox.events (topic, key, payload, tx) VALUES ('t', 'k', '1', '5000000'), ('t', 'k', '2', '3')`)
	w.exec(`ALTER TABLE outbox.events ENABLE ALWAYS TRIGGER own_tx`)
	r := w.start(w.config(), &memory{})
	r.awaitValues("1", "2")
	if n := w.text(`SELECT count(*)::text FROM outbox.events WHERE tx >= pg_current_xact_id()`); n != "0" {
		t.Errorf("%s rows keep a foreign transaction id", n)
	}
}

// Each answer about another system does what it says.
func TestAcceptedIdentity(t *testing.T) {
	for choice, want := range map[string][]string{
		"republish": {"1", "1", "2", "3"}, "trust-xids": {"1", "2", "3"}, "none": {"1", "3"},
	} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 17)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			sink := r.sink
			r.stop()
			w.write(2)
			w.execScript("UPDATE outbox.relays SET system_id = '7';\nSELECT pg_drop_replication_slot('outrider_test')")
			r = w.start(w.config(), sink)
			s := r.awaitRole(relay.RoleHalted, "other_system")
			r.stop()
			cfg := w.config()
			_, token, _ := strings.Cut(s.Hint, "OUTRIDER_ACCEPT_IDENTITY=")
			token, _, _ = strings.Cut(token, ":")
			cfg.AcceptIdentity = token + ":" + choice
			r = w.start(cfg, sink)
			r.awaitPhase(w, "streaming")
			w.write(3)
			r.awaitValues(want...)
		})
	}
}

// After an end that was not clean the next relay waits until the old one can send nothing more.
func TestTakeoverWaitsForTheLease(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	r.stop()
	w.exec(`UPDATE outbox.relays SET released = false, updated_at = clock_timestamp(), timeout_ms = 4000`)
	began := time.Now()
	r = w.start(w.config(), &memory{})
	w.write(2)
	r.awaitValues("2")
	if waited := time.Since(began); waited < 3500*time.Millisecond {
		t.Errorf("published %s after a leader that may still be writing", waited)
	}
	r.stop()
	began = time.Now()
	r = w.start(w.config(), &memory{})
	w.write(3)
	r.awaitValues("3")
	t.Logf("after a clean stop it took %s", time.Since(began))
}
