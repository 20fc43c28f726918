package relay_test

import (
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// lastHint is the last way out, in the form in which follow takes the first.
func lastHint(hint string) string { return hint[strings.LastIndex(hint, "\nor: ")+1:] }

// Who deletes the topic of checkpoints, or sets it back, takes from the relay
// what it needs to repeat nothing. It says so, and what it prints loses nothing.
func TestCheckpointLost(t *testing.T) {
	for name, lose := range map[string]func(*relay.Checkpoint){
		"missing":             func(c *relay.Checkpoint) { *c = relay.Checkpoint{} },
		"older position":      func(c *relay.Checkpoint) { c.Position.LSN = 1 },
		"older generation":    func(c *relay.Checkpoint) { c.Generation-- },
		"still the backlog's": func(c *relay.Checkpoint) { c.Phase, c.Cursor, c.Position.LSN = relay.CheckpointBacklog, 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b, all := interrupted(t, 18)
			before := w.generation()
			kept := b.stored()
			b.change(lose)
			r := w.startExact(w.exact(), b.sink(false))
			s := r.awaitRole(relay.RoleHalted, "checkpoint_lost")
			t.Logf("%s\n%s", s.Error, s.Hint)
			b.awaitExactly(t, all[:7]...)
			if name == "missing" { // the topic is restored: nothing comes twice
				b.change(func(c *relay.Checkpoint) { *c = kept })
				r.awaitRole(relay.RoleLeader, "")
				b.awaitExactly(t, all...)
				return
			}
			w.follow(s.Hint, &relay.Config{})
			r.awaitRole(relay.RoleLeader, "")
			await(t, func() error { return firsts(b, all) })
			if got := strings.Join(b.values()[7:], " "); got != strings.Join(all[3:], " ") {
				t.Errorf("after the answer came %s, want what was not confirmed: %v", got, all[3:])
			}
			if after := w.generation(); after == before {
				t.Errorf("repeated under the same generation %s", after)
			}
		})
	}
}

func TestCheckpointLostInTheBacklog(t *testing.T) {
	w, b := newWorld(t, 14), &broker{}
	all := w.inOne(1, 20)
	x := b.sink(true)
	r := w.startExact(w.exact(), x)
	x.awaitHeld(t, 20)
	x.answer(10)
	await(t, func() error { return w.has(`SELECT position IS NOT NULL FROM outbox.relays WHERE phase = 'backlog'`) })
	r.crash(x, 0)
	b.awaitExactly(t, all[:10]...)
	b.change(func(c *relay.Checkpoint) { *c = relay.Checkpoint{} })
	r = w.startExact(w.exact(), b.sink(false))
	s := r.awaitRole(relay.RoleHalted, "checkpoint_lost")
	w.follow(s.Hint, &relay.Config{})
	r.awaitPhase(w, "streaming")
	if err := firsts(b, all); err != nil {
		t.Error(err)
	}
}

// A relay that has published nothing owes no checkpoint, nor does one that was at-least-once.
func TestNoCheckpointIsOwed(t *testing.T) {
	t.Run("nothing published", func(t *testing.T) {
		w, b := newWorld(t, 18), &broker{}
		for range 2 {
			r := w.startExact(w.exact(), b.sink(false))
			r.awaitPhase(w, "streaming")
			w.exec(`CREATE TABLE IF NOT EXISTS noise AS SELECT 1`)
			r.stop()
		}
		w.startExact(w.exact(), b.sink(false)).awaitRole(relay.RoleLeader, "")
		b.awaitExactly(t, w.inOne(1, 1)...)
	})
	t.Run("at-least-once before", func(t *testing.T) {
		w, b := newWorld(t, 18), &broker{}
		plain := &memory{}
		r := w.start(w.config(), plain)
		r.awaitPhase(w, "streaming")
		w.write(1, 2)
		r.awaitValues("1", "2")
		r.stop()
		w.startExact(w.exact(), b.sink(false)).awaitRole(relay.RoleLeader, "")
		b.awaitExactly(t, w.inOne(3, 3)...)
	})
}
