package relay_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

func numbers(n int) (s []string) {
	for i := range n {
		s = append(s, strconv.Itoa(i+1))
	}
	return s
}

// Commits in another database of the cluster move only keepalives; without them
// the slot would hold back the WAL of everybody.
func TestIdleSlotFollowsOtherDatabases(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		r := w.start(w.config(), &memory{})
		r.awaitRole(relay.RoleLeader, "")
		w.write(1)
		r.awaitValues("1")
		w.exec(`CREATE DATABASE other`)
		other := postgres.Connect(t, w.pg.DatabaseURL("other"))
		positions := func() (confirmed, restart string) {
			return w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`), w.text(`SELECT restart_lsn::text FROM pg_replication_slots`)
		}
		confirmed, restart := positions()
		await(t, func() error {
			if _, err := other.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS noise (x text); INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 500)`); err != nil {
				return err
			}
			w.exec(`CHECKPOINT`) // makes a running-transactions record, without which restart_lsn stands still
			if c, s := positions(); c == confirmed || s == restart {
				return fmt.Errorf("confirmed %s -> %s, restart %s -> %s", confirmed, c, restart, s)
			}
			return nil
		})
	})
}

// The relay's own progress writes must not keep an idle server busy.
func TestNoChatterOnAnIdleDatabase(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	start := w.text(`SELECT pg_current_wal_lsn()::text`)
	w.write(1)
	r.awaitValues("1")
	await(t, func() error {
		if at := w.text(`SELECT (confirmed_lsn = (SELECT confirmed_flush_lsn FROM pg_replication_slots) AND confirmed_lsn > $1::text::pg_lsn
 AND pg_visible_in_snapshot((SELECT tx FROM outbox.events), published))::text FROM outbox.relays`, start); at != "true" {
			return fmt.Errorf("row and slot are not at one position behind the row yet")
		}
		return nil
	})
	before := w.text(`SELECT write_seq::text FROM outbox.relays`)
	from := w.text(`SELECT pg_current_wal_lsn()::text`)
	spell, cancel := context.WithTimeout(t.Context(), 12*time.Second) // longer than the audit's interval
	defer cancel()
	<-spell.Done()
	t.Logf("%s bytes of WAL in 12 idle seconds", w.text(`SELECT (pg_current_wal_lsn() - $1::text::pg_lsn)::text`, from))
	if after := w.text(`SELECT write_seq::text FROM outbox.relays`); after != before {
		t.Errorf("progress row went from write %s to %s in 12 idle seconds", before, after)
	}
}

// A walsender that dies costs no duplicate: the process remembers what the sink has.
func TestKilledWalsenderRepeatsNothing(t *testing.T) {
	w := newWorld(t, 15)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	const rounds = 5
	for i := range rounds {
		w.exec(`INSERT INTO outbox.events (topic, key, payload) SELECT 't', 'k', to_json(i) FROM generate_series($1::int, $2::int) i`, 100*i+1, 100*i+100)
		before := r.Status().Sessions
		w.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL`)
		await(t, func() error {
			if s := r.Status(); s.Sessions == before || s.Role != relay.RoleLeader {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	r.awaitValues(numbers(100 * rounds)...)
}

// While the sink takes nothing, memory stays within the budget and the
// connection stays up, far longer than wal_sender_timeout.
func TestFullBudgetKeepsTheConnection(t *testing.T) {
	w := newWorld(t, 18)
	cfg := w.config()
	cfg.MaxInFlightBytes, cfg.WALSenderTimeout = 1<<20, time.Second
	r := w.start(cfg, &memory{holds: true})
	pid := w.fillBudget(r)
	spell, cancel := context.WithTimeout(t.Context(), 5*cfg.WALSenderTimeout)
	defer cancel()
	<-spell.Done()
	if now := w.text(`SELECT active_pid::text FROM pg_replication_slots`); now != pid {
		t.Errorf("walsender was %s and is %s after %s without room", pid, now, 5*cfg.WALSenderTimeout)
	}
	if s := r.Status(); s.InFlightBytes > int64(cfg.MaxInFlightBytes)+3000 || !s.BudgetFull {
		t.Errorf("in flight: %d bytes, budget %d", s.InFlightBytes, cfg.MaxInFlightBytes)
	}
	r.sink.hold(false)
	r.awaitValues(numbers(bulk)...)
}

// bulk rows of 2 KB do not fit a budget of 1 MiB, nor the kernel's socket buffers.
const bulk = 6000

func (w *world) fillBudget(r *running) (walsender string) {
	w.t.Helper()
	r.awaitRole(relay.RoleLeader, "")
	for i := range bulk / 1000 {
		w.exec(`INSERT INTO outbox.events (topic, key, payload, headers) SELECT 't', 'k', to_json(i), jsonb_build_object('fill', repeat('x', 2000)) FROM generate_series($1::int, $2::int) i`, 1000*i+1, 1000*i+1000)
	}
	await(w.t, func() error {
		if s := r.Status(); !s.BudgetFull {
			return fmt.Errorf("in flight: %d bytes", s.InFlightBytes)
		}
		return nil
	})
	return w.text(`SELECT active_pid::text FROM pg_replication_slots`)
}

// A database must be able to stop although the sink is away: with everything
// read but not settled, and with the socket unread and megabytes behind it.
func TestServerStopsWhileTheSinkIsAway(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		for name, fill := range map[string]func(w *world, r *running) int{
			"socket drained": func(w *world, r *running) int {
				r.awaitRole(relay.RoleLeader, "")
				w.write(1, 2, 3)
				await(w.t, func() error {
					if s := r.Status(); s.InFlightRows != 3 {
						return fmt.Errorf("%d rows in flight", s.InFlightRows)
					}
					return nil
				})
				return 3
			},
			"budget full": func(w *world, r *running) int { w.fillBudget(r); return bulk },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, major)
				cfg := w.config()
				cfg.MaxInFlightBytes, cfg.WALSenderTimeout = 1<<20, 15*time.Second
				r := w.start(cfg, &memory{holds: true})
				rows := fill(w, r)
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
				r.sink.hold(false)
				await(t, func() error { // what Begin dropped comes again
					if got := r.sink.values(); len(got) < rows || got[len(got)-1] != strconv.Itoa(rows) {
						return fmt.Errorf("%d of %d rows, status %+v", len(got), rows, r.Status())
					}
					return nil
				})
			})
		}
	})
}

// Two relays on one slot: one streams; the other holds no replication
// connection, provokes no error on the server, and takes over.
func TestStandbyTakesOver(t *testing.T) {
	w := newWorld(t, 18)
	first := w.start(w.config(), &memory{})
	first.awaitRole(relay.RoleLeader, "")
	cfg := w.config()
	cfg.Instance = "second"
	second := w.start(cfg, &memory{})
	second.awaitRole(relay.RoleStandby, "slot_held")
	w.write(1)
	first.awaitValues("1")
	if n := w.text(`SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'walsender'`); n != "1" {
		t.Errorf("%s walsenders for one leader and one standby", n)
	}
	first.stop()
	began := time.Now()
	second.awaitRole(relay.RoleLeader, "")
	t.Logf("takeover after %s", time.Since(began).Round(time.Millisecond))
	w.write(2)
	second.awaitValues("2")
	if log := w.pg.Log(); strings.Contains(log, "ERROR:") {
		t.Errorf("the server logged an error:\n%s", log)
	}
}

// After a promotion positions start again below those of the old primary. What
// was learned there must not be held against the new one.
func TestPromotionUnderALivingRelay(t *testing.T) {
	for _, major := range []int{17, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			standby := w.pg.StartStandby(t, "phys", "sync_replication_slots=on", "hot_standby_feedback=on")
			cfg := w.config()
			urls := strings.Replace(w.pg.URL(), fmt.Sprintf(":%d", w.pg.Port()), fmt.Sprintf(":%d,127.0.0.1:%d", w.pg.Port(), standby.Port()), 1)
			cfg.DatabaseURL = secret.New(urls + sep(urls) + "target_session_attrs=read-write")
			r := w.start(cfg, &memory{})
			r.awaitRole(relay.RoleLeader, "")
			w.write(1)
			r.awaitValues("1")
			on := postgres.Connect(t, standby.URL())
			await(t, func() error { // the slot is safe there once it is no longer temporary
				w.exec(`SELECT pg_log_standby_snapshot()`)
				w.exec(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase) VALUES ('x', 1, '', 1, 'creating') ON CONFLICT (slot) DO UPDATE SET epoch = relays.epoch + 1`)
				var ready bool
				err := on.QueryRow(t.Context(), `SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = 'outrider_test'`).Scan(&ready)
				if err == nil && !ready {
					err = fmt.Errorf("the slot is not synchronized yet")
				}
				return err
			})
			// From here on the standby receives nothing, while the old primary's positions run ahead.
			w.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'phys'`)
			if _, err := on.Exec(t.Context(), `ALTER SYSTEM SET primary_conninfo = ''`); err != nil {
				t.Fatal(err)
			}
			if _, err := on.Exec(t.Context(), `SELECT pg_reload_conf()`); err != nil {
				t.Fatal(err)
			}
			await(t, func() error {
				var n int
				if err := on.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_wal_receiver`).Scan(&n); err != nil {
					return err
				}
				if n > 0 {
					return fmt.Errorf("%d receivers", n)
				}
				return nil
			})
			for i := range 50 {
				w.write(1000 + i)
			}
			await(t, func() error {
				if n := len(r.sink.values()); n != 51 {
					return fmt.Errorf("%d rows", n)
				}
				return nil
			})
			far := r.Status().ReceivedLSN
			if err := w.pg.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.awaitTimeline(2)
			w.db = postgres.Connect(t, standby.URL())
			w.write(2, 3)
			if at := w.text(`SELECT (pg_current_wal_lsn() < $1::text::pg_lsn)::text`, far); at != "true" {
				t.Fatalf("the new primary has already passed %s: the test shows nothing", far)
			}
			await(t, func() error {
				if got := r.sink.values(); strings.Join(got[len(got)-2:], " ") != "2 3" {
					return fmt.Errorf("last values %v, status %+v", got[len(got)-2:], r.Status())
				}
				return nil
			})
			if source := r.sink.begun[len(r.sink.begun)-1]; source.Timeline != 2 || source.Generation != 2 {
				t.Errorf("source after the promotion: %+v; want timeline 2 under a new generation", source)
			}
		})
	}
}

func sep(url string) string {
	if strings.Contains(url, "?") {
		return "&"
	}
	return "?"
}

func (r *running) awaitTimeline(timeline int32) {
	r.t.Helper()
	await(r.t, func() error {
		if s := r.Status(); s.Role != relay.RoleLeader || s.Timeline != timeline {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// A server that crashes is waited for, and what the sink has is not sent again by the same process.
func TestServerCrash(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		r := w.start(w.config(), &memory{})
		r.awaitRole(relay.RoleLeader, "")
		w.write(1, 2)
		r.awaitValues("1", "2")
		if err := w.pg.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.db = postgres.Connect(t, w.pg.URL())
		w.write(3)
		r.awaitFirsts("1", "2", "3") // the storage may have been set back: only what the row knows is not repeated
	})
}

// Slot creation waits for transactions in progress; the relay says for which.
func TestSlotCreationNamesWhomItWaitsFor(t *testing.T) {
	w := newWorld(t, 15, "max_prepared_transactions=5")
	other := postgres.Connect(t, w.pg.URL())
	if _, err := other.Exec(t.Context(), `BEGIN; CREATE TABLE x (); PREPARE TRANSACTION 'forgotten'`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.config(), &memory{})
	s := r.awaitRole(relay.RoleWaiting, "transactions")
	if !strings.Contains(s.Error, "prepared transaction forgotten") {
		t.Errorf("waiting for: %s", s.Error)
	}
	w.exec(`ROLLBACK PREPARED 'forgotten'`)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1)
	r.awaitValues("1")
}
