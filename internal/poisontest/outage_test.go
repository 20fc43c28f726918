package poisontest_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/relay"
)

// searching returns when the relay is in the middle of a search that lasts for a
// while, nothing is condemned yet, and what is refused.
func (w *world) searching(r *running) (bad []string, last string) {
	w.t.Helper()
	w.cluster.SetTopic(w.t, w.topic, "cleanup.policy=compact")
	w.hide()
	before := r.Status().Sessions
	bad, last = w.writeCrowd(crowd/3, `n = 2718`, keyless)
	await(w.t, func() error {
		if s := r.Status(); s.Sessions < before+3 || s.Reason != "poison_search" {
			return fmt.Errorf("%d sessions more, reason %s", s.Sessions-before, s.Reason)
		}
		return nil
	})
	return bad, last
}

// inTheMiddle fails unless the search was cut short: else the fault came too late.
func (w *world) inTheMiddle() {
	w.t.Helper()
	if dead := w.deadRows(); dead != "" {
		w.t.Errorf("condemned: %s", dead)
	}
}

// Kafka goes away in the middle of the search: no row is condemned for that.
func TestOutageInTheSearch(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		r := w.started(relay.PoisonSkip)
		bad, last := w.searching(r)
		w.network.cut()
		await(t, func() error {
			s := r.Status()
			if !slices.ContainsFunc(s.Conditions, func(c relay.Condition) bool { return c.Reason == "kafka_unreachable" }) {
				return fmt.Errorf("role %s, reason %s, conditions %v", s.Role, s.Reason, s.Conditions)
			}
			return nil
		})
		w.inTheMiddle()
		w.network.mend()
		w.arrives(last)
		w.awaitDead(states(bad, "skipped"))
		w.verify(r)
	})
}

// The permission to write is taken away in the middle of the search: the brokers
// then refuse each row, and none of them is bad.
func TestPermissionTakenInTheSearch(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		r := w.started(relay.PoisonSkip)
		bad, last := w.searching(r)
		w.deny(w.topic, kadm.OpWrite)
		r.awaitRole(relay.RoleHalted, "kafka_authorization")
		w.inTheMiddle()
		w.permit(w.topic, kadm.OpWrite)
		w.arrives(last)
		w.awaitDead(states(bad, "skipped"))
		w.verify(r)
	})
}
