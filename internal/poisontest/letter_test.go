package poisontest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/relay"
)

// A topic of dead letters that is not there is waited for, like any other.
func TestDeadLetterTopicMissing(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		r := w.started(relay.PoisonDeadLetter)
		w.cluster.SetTopic(w.t, w.topic, "max.message.bytes=3000")
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
		w.cluster.SetTopic(w.t, w.topic, "max.message.bytes=3000")
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
