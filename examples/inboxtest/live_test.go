package inboxtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/examples/consumer"
)

// TestOneEffectWhateverDies is the promise as a service sees it. All the while
// members of both groups die between effect and commit, between commit and
// offset, and anywhere, so that the groups rebalance under traffic.
func TestOneEffectWhateverDies(t *testing.T) {
	w := newStage(t)
	w.start()
	stop := w.traffic()
	defer stop()
	w.flow(200)
	for range 2 { // the relay is killed with rows on their way
		w.running.Kill()
		w.start()
		w.flow(150)
	}
	w.inject(300)
	w.loseSlot()
	w.flow(150)
	retried := w.retryDeadLetter()
	w.inject(300)
	w.promote()
	w.flow(150)
	await(t, w.group.died) // members die when they have taken something, so rows flow until each has

	stop()
	w.everywhere()
	w.group.end()
	w.judge(retried)
}

// inject produces records that are on the topic already once more, behind the
// others: as a producer does that believes they were lost.
func (w *stage) inject(n int) {
	w.t.Helper()
	var copies []*kgo.Record
	for _, r := range w.read(w.topic) {
		if rand.IntN(4) == 0 && len(copies) < n {
			copies = append(copies, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
	}
	if err := w.client.ProduceSync(w.t.Context(), copies...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	w.injected += len(copies)
}

// loseSlot drops the slot while rows wait in it: the relay recovers from the
// table what came since its last mark, under a new generation.
func (w *stage) loseSlot() {
	w.t.Helper()
	w.running.Kill()
	w.grow(50)
	await(w.t, func() error { // the walsender may not have noticed yet that its relay is gone
		_, err := w.pool.Load().Exec(w.t.Context(), "SELECT pg_drop_replication_slot('outrider_"+shopName+"')")
		return err
	})
	w.start()
}

// retryDeadLetter has the topic refuse a row, and puts it into the stream again
// when it no longer does. Both groups read the dead letter, too.
func (w *stage) retryDeadLetter() (id string) {
	w.t.Helper()
	w.limit("3000")
	id, err := w.write(w.t.Context(), 20_000)
	if err != nil {
		w.t.Fatal(err)
	}
	await(w.t, func() error {
		var n int
		err := w.pool.Load().QueryRow(w.t.Context(), "SELECT count(*) FROM outbox.dead WHERE id = $1 AND state = 'dead-lettered'", id).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("the row is no dead letter yet")
		}
		if err == nil && len(w.read(deadTopic)) == 0 { // it is sent after it is written down
			err = errors.New("the dead letter is not on Kafka yet")
		}
		return err
	})
	w.limit("1048588")
	out, err := w.relay.Command(w.t.Context(), "deadletter", "retry", id)
	if err != nil || !strings.Contains(out, "retried "+id) {
		w.t.Fatalf("%v\n%s", err, out)
	}
	return id
}

// limit sets what the topic takes of a record, in octets.
func (w *stage) limit(octets string) {
	w.t.Helper()
	results, err := w.admin.AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &octets}}, w.topic)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// promote moves the service to a standby, while rows wait for a relay that is down.
func (w *stage) promote() {
	w.t.Helper()
	standby := w.primary.StartStandby(w.t, "second")
	w.running.Kill()
	w.grow(50)
	w.paused.Lock()
	defer w.paused.Unlock()
	old := connect(w.t, w.primary.URL())
	await(w.t, func() error {
		if !get[bool](w.t, old, "SELECT coalesce(bool_or(replay_lsn >= pg_current_wal_lsn()), false) FROM pg_stat_replication WHERE application_name = 'second'") {
			return errors.New("the standby is behind")
		}
		return nil
	})
	if err := w.primary.Crash(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := standby.Promote(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.livesOn(standby)
	w.start()
}

// everywhere waits until all that was committed is on Kafka, ends the relay, and
// waits until the groups have read all of Kafka.
func (w *stage) everywhere() {
	w.t.Helper()
	await(w.t, func() error {
		there := map[string]bool{}
		for _, r := range w.read(w.topic) {
			id, _ := consumer.Record(r).Header("id")
			there[string(id)] = true
		}
		if len(there) < w.count() {
			return fmt.Errorf("%d of %d events are on Kafka", len(there), w.count())
		}
		return nil
	})
	if err := w.running.Stop(w.t.Context(), syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	await(w.t, func() error {
		lags, err := w.admin.Lag(w.t.Context(), byID, byPosition)
		if err != nil {
			return err
		}
		for _, lag := range lags {
			if n := lag.Lag.Total(); lag.Error() != nil || n != 0 || len(lag.Lag) < 2 {
				return fmt.Errorf("group %s is %d records behind: %w", lag.Group, n, lag.Error())
			}
		}
		return nil
	})
}

// judge compares the effects with what was committed, and makes sure that what
// was to happen did happen.
func (w *stage) judge(retried string) {
	w.t.Helper()
	occurrences, sources, timelines := map[string]int{}, map[string]bool{}, map[string]bool{}
	records := w.read(w.topic)
	for _, r := range records {
		id, _ := consumer.Record(r).Header("id")
		source, _ := consumer.Record(r).Header("outrider-source")
		occurrences[string(id)]++
		sources[string(source)] = true
		timelines[strings.Split(string(source), ".")[1]] = true
	}
	for id := range occurrences {
		if !w.committed[id] {
			w.t.Errorf("event %s is on Kafka, and nobody knows of its commit", id)
		}
	}
	for _, consumer := range []string{byID, byPosition} {
		effects := w.effectsPer(consumer)
		missing, repeated := 0, 0
		for id := range w.committed {
			switch n := effects[id]; {
			case n == 0:
				missing++
			case n > 1:
				repeated++
			}
		}
		w.t.Logf("%s: %d events committed, %d with an effect, %d without, %d with more than one", consumer, len(w.committed), len(effects), missing, repeated)
		if missing+repeated > 0 || len(effects) != len(w.committed) {
			w.t.Errorf("consumer %s: not each event had one effect", consumer)
		}
	}
	assignments := strings.Count(w.group.text(), "assigned")
	chunks := get[int](w.t, w.effects, "SELECT count(*)::int FROM outbox.inbox_chunks WHERE consumer = $1", byPosition)
	singly := get[int](w.t, w.effects, "SELECT count(*)::int FROM outbox.inbox WHERE consumer = $1", byPosition)
	w.t.Logf("%d records, %d of them injected; sources %v; members %v, %d assignments; by position: %d chunks, %d ids apart",
		len(records), w.injected, sources, w.group.lives, assignments, chunks, singly)
	for what, happened := range map[string]bool{
		"the relay repeated records":     len(records)-w.injected > len(occurrences),
		"the slot was lost":              len(sources) >= 3,
		"the timeline changed":           len(timelines) == 2,
		"a dead letter came":             len(w.read(deadTopic)) > 0,
		"the dead letter was retried":    occurrences[retried] > 0,
		"the groups rebalanced":          assignments > 12,
		"ids were packed, and some not":  chunks > 10 && singly > 10,
		"copies were produced by others": w.injected > 400,
	} {
		if !happened {
			w.t.Errorf("void: not so: %s", what)
		}
	}
}
