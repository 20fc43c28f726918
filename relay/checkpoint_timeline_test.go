package relay_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

// leftBehind is a primary that published what its standby never received, and
// died; the standby has been promoted, and the world goes on there. Positions
// of the old primary lie ahead of what the new one writes.
func leftBehind(t *testing.T) (w *world, old *postgres.Server, b *broker, published []string) {
	t.Helper()
	w, b = newWorld(t, 18), &broker{}
	standby, on := w.copying("standby")
	r := w.startExact(w.exact(), b.sink(false))
	r.awaitPhase(w, "streaming")
	published = w.inOne(1, 3)
	b.awaitExactly(t, published...)
	awaitReady(t, on)
	r.awaitPublished(w)
	w.awaitReplay("standby")
	cutOff(t, on)
	phantoms := w.inOne(1001, 1100)
	published = append(published, phantoms...)
	b.awaitExactly(t, published...)
	r.stop()
	old = w.pg
	w.goTo(standby)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, old, b, published
}

// cutOff lets a standby receive nothing any more.
func cutOff(t *testing.T, on *pgx.Conn) {
	t.Helper()
	for _, sql := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
		if _, err := on.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() error {
		var n int
		err := on.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_wal_receiver`).Scan(&n)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d receivers", n)
		}
		return err
	})
}

func TestPhantomsExactlyOnce(t *testing.T) {
	w, _, b, all := leftBehind(t)
	before := w.generation()
	far := b.stored().Position
	all = append(all, w.inOne(4, 8)...)
	if at := w.text(`SELECT (pg_current_wal_lsn() < $1::text::pg_lsn)::text`, far.LSN.String()); at != "true" {
		t.Fatalf("the new primary has already passed %s: the test shows nothing", far)
	}
	// It dies in the midst of the first transaction of the new timeline, and the next one goes on there.
	x := b.sink(true)
	r := w.startExact(w.exact(), x)
	x.awaitHeld(t, 5)
	r.crash(x, 2)
	r = w.startExact(w.exact(), b.sink(false))
	b.awaitExactly(t, all...)
	all = append(all, w.inOne(9, 10)...)
	b.awaitExactly(t, all...)
	r.awaitTimeline(2)
	if after := w.generation(); after != before {
		t.Errorf("the generation went from %s to %s", before, after)
	}
}

// The checkpoint tells a new process what neither the row of an old primary nor
// that of another branch can: that the world went on elsewhere. Nobody is fenced.
func TestBranchThatWasLeft(t *testing.T) {
	t.Run("old primary", func(t *testing.T) {
		t.Parallel()
		w, old, b, all := leftBehind(t)
		r := w.startExact(w.exact(), b.sink(false))
		all = append(all, w.inOne(4, 4)...)
		b.awaitExactly(t, all...)
		r.stop()
		w.goTo(old)
		w.awaitBranch(b, all)
	})
	t.Run("another standby of the same timeline", func(t *testing.T) {
		t.Parallel()
		w, _, b, all := leftBehind(t)
		r := w.startExact(w.exact(), b.sink(false))
		all = append(all, w.inOne(4, 4)...)
		b.awaitExactly(t, all...)
		r.stop()
		b.change(func(c *relay.Checkpoint) { c.History = strings.Replace(c.History, "1\t0/", "1\t0/1", 1) })
		w.awaitBranch(b, all)
	})
}

// Without a row of its own, as where the server left the line before there was
// one, it is still not a first start until somebody says so.
func TestBranchThatWasLeftBeforeTheRow(t *testing.T) {
	w, old, b, all := leftBehind(t)
	r := w.startExact(w.exact(), b.sink(false))
	all = append(all, w.inOne(4, 4)...)
	b.awaitExactly(t, all...)
	r.stop()
	w.goTo(old)
	w.exec(`DELETE FROM outbox.relays`)
	w.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
	w.awaitBranch(b, all)
}

// awaitBranch starts a relay in the world, which must wait, and goes on as its hint says.
func (w *world) awaitBranch(b *broker, all []string) {
	w.t.Helper()
	begun := len(b.begun)
	kept := b.stored()
	w.inOne(777, 777)
	r := w.startExact(w.exact(), b.sink(false))
	s := r.awaitRole(relay.RoleWaiting, "timeline")
	if len(b.begun) != begun {
		w.t.Error("somebody was fenced")
	}
	b.awaitExactly(w.t, all...)
	w.t.Log(s.Error, s.Hint)
	w.follow(lastHint(s.Hint), &relay.Config{})
	r.awaitRole(relay.RoleLeader, "")
	await(w.t, func() error { return firsts(b, append(all, "777")) })
	if now := b.stored().Generation; now <= kept.Generation {
		w.t.Errorf("generation %d after %d", now, kept.Generation)
	}
}

// A change of the way to deliver is a new generation each time, and nothing
// else: after clean ends nothing comes twice either.
func TestDeliveryChangesToAndFro(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w, b, plain := newWorld(t, major), &broker{}, &memory{}
		all := w.inOne(1, 5)
		last := 0
		var got []string
		for i, exactly := range []bool{true, false, true, true, false, false, true} {
			var r *running
			if exactly {
				r = w.startExact(w.exact(), b.sink(false))
			} else {
				r = w.start(w.config(), plain)
			}
			r.awaitPhase(w, "streaming")
			all = append(all, w.inOne(100*i+10, 100*i+14)...)
			await(t, func() error {
				if n := len(b.values()) + len(plain.values()); n < len(all) {
					return fmt.Errorf("%d of %d", n, len(all))
				}
				return nil
			})
			r.awaitPublished(w) // else the stop may come before the end of the transaction is read, and at-least-once repeats it
			r.stop()
			generation, err := strconv.Atoi(w.generation())
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strconv.Itoa(generation-last))
			last = generation
		}
		if want := "1 1 1 0 1 0 1"; strings.Join(got, " ") != want {
			t.Errorf("generations grew by %v, want %s", got, want)
		}
		if n := len(b.values()) + len(plain.values()); n != len(all) {
			t.Errorf("%d records of %d rows", n, len(all))
		}
	})
}

// The leader dies with a commit unanswered, and another way to deliver takes
// over: what it does not know of comes once more, and nothing is lost.
func TestDeliveryChangesAfterADeath(t *testing.T) {
	w, b, all := interrupted(t, 17)
	plain := &memory{}
	r := w.start(w.config(), plain)
	r.awaitValues(all[3:]...)
	r.stop()
	all = append(all, w.inOne(14, 16)...)
	w.startExact(w.exact(), b.sink(false))
	b.awaitExactly(t, append(all[:7:7], "14", "15", "16")...)
	if g := strings.Join(b.generations(), " "); g != "1 3" {
		t.Errorf("generations %s", g)
	}
}
