package relay_test

import (
	"fmt"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// held waits until the sink holds n messages.
func (x *transactions) awaitHeld(t *testing.T, n int) {
	t.Helper()
	await(t, func() error {
		if have := x.holding(); have < n {
			return fmt.Errorf("the sink holds %d messages, want %d", have, n)
		}
		return nil
	})
}

// interrupted is a relay that died in the midst of a transaction of ten rows,
// four of which are committed on Kafka.
func interrupted(t *testing.T, major int) (w *world, b *broker, all []string) {
	t.Helper()
	w, b = newWorld(t, major), &broker{}
	r := w.startExact(w.exact(), b.sink(false))
	r.awaitPhase(w, "streaming")
	all = w.inOne(1, 3)
	b.awaitExactly(t, all...)
	r.stop()
	x := b.sink(true)
	r = w.startExact(w.exact(), x)
	all = append(all, w.inOne(4, 13)...)
	x.awaitHeld(t, 10)
	r.crash(x, 4)
	b.awaitExactly(t, all[:7]...)
	return w, b, all
}

func TestResumeInsideATransaction(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w, b, all := interrupted(t, major)
		before := w.generation()
		// Once more in the midst, at another row.
		x := b.sink(true)
		r := w.startExact(w.exact(), x)
		x.awaitHeld(t, 6)
		r.crash(x, 5)
		r = w.startExact(w.exact(), b.sink(false))
		b.awaitExactly(t, all...)
		all = append(all, w.inOne(14, 15)...)
		b.awaitExactly(t, all...)
		if after := w.generation(); after != before {
			t.Errorf("the generation went from %s to %s", before, after)
		}
		r.stop()
		w.startExact(w.exact(), b.sink(false)).awaitRole(relay.RoleLeader, "")
		b.awaitExactly(t, append(all, w.inOne(16, 16)...)...)
	})
}

// The same WAL is decoded to other rows than before, as after a minor upgrade
// of the server. What the hint prints publishes everything since the last mark
// again, under a new generation.
func TestReplayDiffers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*relay.Checkpoint)
		reason string
	}{
		"another row": {func(c *relay.Checkpoint) { c.LastID = "00000000-0000-7000-8000-000000000000" }, "replay_differs"},
		"fewer rows":  {func(c *relay.Checkpoint) { c.Position.Ordinal = 20 }, "replay_differs"},
		"no rows":     {func(c *relay.Checkpoint) { c.Position.LSN-- }, "replay_differs"},
		"other names": {func(c *relay.Checkpoint) { c.Options = "other" }, "options_changed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b, all := interrupted(t, 16)
			b.change(c.change)
			r := w.startExact(w.exact(), b.sink(false))
			s := r.awaitRole(relay.RoleHalted, c.reason)
			b.awaitExactly(t, all[:7]...)
			w.follow(lastHint(s.Hint), &relay.Config{})
			await(t, func() error { return firsts(b, all) })
			if g := b.generations(); len(g) != 2 {
				t.Errorf("records of the generations %v, want two", g)
			}
		})
	}
}

// firsts returns an error unless the first occurrences are exactly all, in order.
func firsts(b *broker, all []string) error {
	seen := map[string]bool{}
	var got []string
	for _, v := range b.values() {
		if !seen[v] {
			seen[v] = true
			got = append(got, v)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(all) {
		return fmt.Errorf("first occurrences %v, want %v", got, all)
	}
	return nil
}

// When everything is confirmed no transaction comes in part, and the names are free.
func TestOptionsMayChangeWhenAllIsConfirmed(t *testing.T) {
	w, b := newWorld(t, 18), &broker{}
	r := w.startExact(w.exact(), b.sink(false))
	r.awaitPhase(w, "streaming")
	all := w.inOne(1, 5)
	b.awaitExactly(t, all...)
	r.stop()
	b.change(func(c *relay.Checkpoint) { c.Options = "other" })
	w.startExact(w.exact(), b.sink(false))
	b.awaitExactly(t, append(all, w.inOne(6, 7)...)...)
}

// The cursor of the progress row follows; the checkpoint's is exact.
func TestCheckpointOfTheBacklogWins(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w, b := newWorld(t, major), &broker{}
		all := w.inOne(1, 50)
		for range 2 {
			x := b.sink(true)
			r := w.startExact(w.exact(), x)
			x.awaitHeld(t, 50-len(b.values()))
			r.crash(x, 15)
			if cursor := w.text(`SELECT cursor::text FROM outbox.relays`); cursor == "" || cursor == "50" {
				t.Fatalf("the row knows of cursor %s, without an answer", cursor)
			}
		}
		b.awaitExactly(t, all[:30]...)
		w.startExact(w.exact(), b.sink(false)).awaitPhase(w, "streaming")
		all = append(all, w.inOne(51, 55)...)
		b.awaitExactly(t, all...)
		if g := b.generations(); len(g) != 1 {
			t.Errorf("records of the generations %v, want one", g)
		}
	})
}

// A slot that was dropped is recovered from the table, under a new generation:
// positions of the old one mean nothing there.
func TestCheckpointAfterALostSlot(t *testing.T) {
	w, b, all := interrupted(t, 17)
	before := w.generation()
	w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
	r := w.startExact(w.exact(), b.sink(false))
	r.awaitPhase(w, "streaming")
	await(t, func() error { return firsts(b, all) })
	if after := w.generation(); after == before {
		t.Errorf("still generation %s", after)
	}
	n := len(b.values())
	r.stop()
	w.startExact(w.exact(), b.sink(false)).awaitRole(relay.RoleLeader, "")
	w.inOne(14, 14)
	await(t, func() error { return firsts(b, append(all, "14")) })
	if len(b.values()) != n+1 {
		t.Errorf("repeated after a clean restart: %v", b.values())
	}
}

// A checkpoint that is newer than the progress row tells of a database that was set back.
func TestDatabaseOlderThanTheCheckpoint(t *testing.T) {
	for name, newer := range map[string]func(*relay.Checkpoint){
		"generation": func(c *relay.Checkpoint) { c.Generation++ },
		"epoch":      func(c *relay.Checkpoint) { c.Epoch += 100 },
		"write":      func(c *relay.Checkpoint) { c.WriteSeq += 100; c.Epoch++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b, all := interrupted(t, 15)
			b.change(newer)
			x := b.sink(false)
			r := w.startExact(w.exact(), x)
			s := r.awaitRole(relay.RoleHalted, "database_rewound")
			if len(b.begun) != 2 {
				t.Error("somebody was fenced by a relay that may be on a copy")
			}
			w.follow(lastHint(s.Hint), &relay.Config{})
			r.awaitRole(relay.RoleLeader, "")
			await(t, func() error { return firsts(b, all) })
		})
	}
}
