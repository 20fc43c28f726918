package poisontest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

// The limit is lowered under the relay, which does not know of it, so that the
// broker is the one that refuses; and each policy does what it says.
func TestLimitLoweredUnderTheRelay(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		for policy, want := range map[string]string{relay.PoisonHalt: "", relay.PoisonDeadLetter: " dead-lettered", relay.PoisonSkip: " skipped"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, delivery)
				w.makeDead()
				r := w.started(policy)
				w.set(w.topic, "max.message.bytes=2000")
				w.write("k", 10)
				large := w.write("k", 5000)
				last := w.write("k", 10)
				if policy == relay.PoisonHalt {
					s := r.awaitRole(relay.RoleHalted, "poison")
					if !strings.Contains(s.Hint, "max.message.bytes=") || !strings.Contains(s.Error, large) {
						t.Errorf("error %s\nhint %s", s.Error, s.Hint)
					}
					w.awaitDead(large + " halted")
					w.set(w.topic, mend(t, s.Hint, w.topic))
					w.arrives(large)
					w.awaitDead("")
				} else {
					w.awaitDead(large + want)
				}
				w.arrives(last)
				r.awaitRole(relay.RoleLeader, "")
				r.refusedBy("MESSAGE_TOO_LARGE")
				w.verify(r)
				if policy != relay.PoisonHalt {
					w.absent(large)
				}
			})
		}
	})
}

// mend is the setting that the printed command gives the topic, all else of the command as it must be.
func mend(t *testing.T, hint, topic string) (setting string) {
	t.Helper()
	at := strings.Index(hint, "kafka-configs.sh ")
	if at < 0 {
		t.Fatalf("no command for the topic: %s", hint)
	}
	command, _, _ := strings.Cut(hint[at:], "\n")
	before, setting, ok := strings.Cut(command, " --entity-name '"+topic+"' --add-config ")
	if !ok || !strings.HasPrefix(before, "kafka-configs.sh --bootstrap-server ") || !strings.HasSuffix(before, " --alter --entity-type topics") {
		t.Fatalf("command %s", command)
	}
	return setting
}

// A topic comes to be compacted, and rows have no key.
func TestTopicCompactedUnderTheRelay(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		for policy, state := range map[string]string{relay.PoisonHalt: "halted", relay.PoisonDeadLetter: "dead-lettered"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, delivery)
				w.makeDead()
				r := w.started(policy)
				w.set(w.topic, "cleanup.policy=compact")
				w.write("k", 10)
				keyless := w.write("", 10)
				last := w.write("k", 10)
				w.awaitDead(keyless + " " + state)
				if policy == relay.PoisonHalt {
					s := r.awaitRole(relay.RoleHalted, "poison")
					w.set(w.topic, mend(t, s.Hint, w.topic))
					w.arrives(keyless)
					w.awaitDead("")
				}
				w.arrives(last)
				r.refusedBy("INVALID_RECORD")
				// The relay knows the topic as it is: now it need not ask the broker.
				w.set(w.topic, "cleanup.policy=compact")
				if policy == relay.PoisonDeadLetter {
					another := w.write("", 10)
					w.awaitDead(keyless + " dead-lettered, " + another + " dead-lettered")
					if letter := w.arrivesIn(w.dead, another); letter.Key != nil || header(letter, relay.HeaderDeadTopic) != w.topic {
						t.Errorf("dead letter: %s", headersOf(letter))
					}
				}
				w.verify(r)
			})
		}
	})
}

// Rows from long ago, and from the future, which the relay cannot know to be
// refused, as it may not read the settings of the topic. The printed command helps.
func TestTimestampRefused(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		for _, policy := range []string{relay.PoisonHalt, relay.PoisonDeadLetter} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, delivery)
				w.makeDead()
				w.hide()
				w.set(w.topic, "message.timestamp.before.max.ms=3600000")
				w.write("k", 10)
				old := w.text(fmt.Sprintf(insertAt, "- interval '1 day'"), w.topic)
				future := w.text(fmt.Sprintf(insertAt, "+ interval '2 hours'"), w.topic)
				last := w.write("k", 10)
				r := w.start(policy)
				if policy == relay.PoisonHalt {
					s := r.awaitRole(relay.RoleHalted, "poison")
					w.awaitDead(old + " halted")
					w.set(w.topic, mend(t, s.Hint, w.topic))
					w.arrives(future)
					w.awaitDead("")
				} else {
					w.arrivesIn(w.dead, old)
					w.arrivesIn(w.dead, future)
					w.awaitDead(old + " dead-lettered, " + future + " dead-lettered")
				}
				w.arrives(last)
				r.refusedBy("INVALID_TIMESTAMP")
				w.verify(r)
			})
		}
	})
}

const insertAt = `INSERT INTO outbox.events (topic, key, payload, created_at) VALUES ($1, 'k', '1', now() %s) RETURNING id`

// Where the relay can read the settings, a limit that is set while rows wait is
// no reason to set one aside: the next attempt has other timestamps.
func TestTimestampLimitSetWhileRowsWait(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		r := w.started(relay.PoisonSkip)
		w.network.cut()
		w.write("k", 10)
		last := w.write("k", 10)
		await(t, func() error {
			if n := r.Status().InFlightRows; n != 2 {
				return fmt.Errorf("%d rows are in flight", n)
			}
			return nil
		})
		const limit = "message.timestamp.before.max.ms=1500"
		await(t, func() error {
			if w.text(`SELECT (max(created_at) < now() - interval '2 seconds')::text FROM outbox.events`) != "true" {
				return fmt.Errorf("rows are younger than %s", limit)
			}
			return nil
		})
		w.set(w.topic, limit)
		w.network.mend()
		w.arrives(last)
		w.awaitDead("")
		r.refusedBy("INVALID_TIMESTAMP")
		w.verify(r)
	})
}
