package poisontest_test

import (
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// Headers that are no object cannot be read: neither in rows that were there
// before the first start nor in the stream.
func TestHeadersThatCannotBeRead(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		for policy, state := range map[string]string{relay.PoisonHalt: "skipped", relay.PoisonDeadLetter: "dead-lettered"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, delivery)
				w.makeDead()
				w.exec(`ALTER TABLE outbox.events DROP CONSTRAINT headers_object`)
				insert := func() string {
					return w.text(`INSERT INTO outbox.events (topic, key, payload, headers) VALUES ($1, 'k', '1', '[]') RETURNING id`, w.topic)
				}
				before := w.write("k", 10)
				bad := []string{insert()}
				between := w.write("k", 10)
				r := w.start(policy)
				answer := func() {
					if policy == relay.PoisonHalt {
						s := r.awaitRole(relay.RoleHalted, "poison")
						if id := bad[len(bad)-1]; !strings.Contains(s.Error, id) || !strings.Contains(s.Hint, "outrider deadletter skip "+id) {
							t.Errorf("error %s\nhint %s", s.Error, s.Hint)
						}
						w.exec(`UPDATE outbox.dead SET state = 'skip' WHERE state = 'halted'`)
					}
				}
				answer()
				w.arrives(between)
				bad = append(bad, insert())
				last := w.write("k", 10)
				answer()
				w.arrives(last)
				w.awaitDead(states(bad, state))
				if kept := w.text(`SELECT string_agg(headers, ' ') FROM outbox.dead`); kept != "[] []" {
					t.Errorf("headers in outbox.dead: %s", kept)
				}
				if policy == relay.PoisonDeadLetter {
					for _, id := range bad {
						if letter := w.arrivesIn(w.dead, id); header(letter, relay.HeaderDeadHeaders) != "[]" || string(letter.Value) != "1" {
							t.Errorf("dead letter: %s", headersOf(letter))
						}
					}
				}
				w.arrives(before)
				w.verify(r)
			})
		}
	})
}
