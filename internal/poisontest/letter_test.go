package poisontest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/relay"
)

// The topic of dead letters takes less than the row: a stub tells of it, and the
// table has it whole.
func TestDeadLetterTooLarge(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		w.makeDead("max.message.bytes=3000")
		r := w.started(relay.PoisonDeadLetter)
		w.set(w.topic, "max.message.bytes=3000")
		small := w.write("k", 10)
		large := w.write("k", 5000)
		last := w.write("k", 10)
		w.arrives(last)
		w.awaitDead(large + " dead-lettered")
		stub := w.arrivesIn(w.dead, large)
		value := w.text(`SELECT payload::text FROM outbox.events WHERE id = $1::text::uuid`, large)
		sum := sha256.Sum256([]byte(value))
		if stub.Value != nil || stub.Key != nil {
			t.Errorf("the stub has %d bytes of value, key %q", len(stub.Value), stub.Key)
		}
		for _, want := range []string{
			"id=" + large, relay.HeaderDeadTopic + "=" + w.topic, relay.HeaderDeadSize + "=" + fmt.Sprint(len(value)),
			relay.HeaderDeadSHA256 + "=" + hex.EncodeToString(sum[:]), "outrider-position=" + w.text(`SELECT position FROM outbox.dead`),
		} {
			if !strings.Contains(headersOf(stub), want+"\n") {
				t.Errorf("the stub lacks %s:\n%s", want, headersOf(stub))
			}
		}
		if !strings.Contains(header(stub, relay.HeaderDeadReason), "max.message.bytes") {
			t.Errorf("the stub does not say why: %s", headersOf(stub))
		}
		w.arrives(small)
		w.verify(r)
	})
}

// Neither the row nor a stub of it can be published anywhere: the relay waits,
// and skip lets it go on.
func TestStubRefused(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		w.makeDead("max.message.bytes=3000", "cleanup.policy=compact") // a stub has no key
		r := w.started(relay.PoisonDeadLetter)
		w.set(w.topic, "max.message.bytes=3000")
		large := w.write("k", 5000)
		last := w.write("k", 10)
		s := r.awaitRole(relay.RoleHalted, "poison")
		if !strings.Contains(s.Error, "its dead letter was refused as well") || strings.Contains(s.Hint, "deadletter divert") || !strings.Contains(s.Hint, "deadletter skip "+large) {
			t.Errorf("error %s\nhint %s", s.Error, s.Hint)
		}
		w.awaitDead(large + " halted")
		w.exec(`UPDATE outbox.dead SET state = 'skip'`)
		w.arrives(last)
		w.awaitDead(large + " skipped")
		w.verify(r)
	})
}

// A topic of dead letters that is not there is waited for, like any other.
func TestDeadLetterTopicMissing(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		r := w.started(relay.PoisonDeadLetter)
		w.set(w.topic, "max.message.bytes=3000")
		large := w.write("k", 5000)
		last := w.write("k", 10)
		await(t, func() error {
			s := r.Status()
			if !slices.ContainsFunc(s.Conditions, func(c relay.Condition) bool { return c.Reason == "topic_missing" && c.Topic == w.dead }) {
				return fmt.Errorf("role %s, reason %s, conditions %v", s.Role, s.Reason, s.Conditions)
			}
			return nil
		})
		w.awaitDead(large + " dead-lettered")
		if records := w.seen.all.of(w.topic); len(records) != 1 {
			t.Errorf("%d records although the dead letter waits", len(records))
		}
		w.makeDead()
		if letter := w.arrivesIn(w.dead, large); len(letter.Value) < 5000 {
			t.Errorf("the dead letter has %d bytes", len(letter.Value))
		}
		w.arrives(last)
		await(t, func() error {
			if c := r.Status().Conditions; len(c) > 0 {
				return fmt.Errorf("conditions %v", c)
			}
			return nil
		})
		w.awaitDead(large + " dead-lettered")
		w.verify(r)
	})
}

// Who may not write dead letters has no bad dead letter.
func TestDeadLettersForbidden(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		w.makeDead()
		w.deny(w.dead, kadm.OpWrite)
		r := w.started(relay.PoisonDeadLetter)
		w.set(w.topic, "max.message.bytes=3000")
		large := w.write("k", 5000)
		last := w.write("k", 10)
		s := r.awaitRole(relay.RoleHalted, "kafka_authorization")
		if !strings.Contains(s.Hint, "--topic '"+w.dead+"'") {
			t.Errorf("hint %s", s.Hint)
		}
		w.awaitDead(large + " dead-lettered")
		w.permit(w.dead, kadm.OpWrite)
		if letter := w.arrivesIn(w.dead, large); len(letter.Value) < 5000 {
			t.Errorf("the dead letter has %d bytes", len(letter.Value))
		}
		w.arrives(last)
		w.awaitDead(large + " dead-lettered")
		w.verify(r)
	})
}
