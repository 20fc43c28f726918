package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/relay"
)

func TestMissingTopicWaitsAndOthersFlow(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "there"))
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	waiting := w.numbered("later", 0, 100)
	w.delivered(w.numbered("there", 0, 100)...)
	got := w.condition("topic_missing", "later", true)
	if !strings.Contains(got.Hint, "kafka-topics.sh --bootstrap-server "+c.ListenAddrs()[0]+" --create --topic 'later'") {
		t.Errorf("hint %q", got.Hint)
	}
	w.delivered(w.numbered("there", 100, 100)...)
	waiting = append(waiting, w.numbered("later", 100, 100)...)
	for _, s := range waiting {
		if !s.open() {
			t.Fatal("a message of the missing topic is settled")
		}
	}
	if err := c.CreateTopic("later", 3, nil); err != nil {
		t.Fatal(err)
	}
	w.delivered(waiting...)
	w.condition("topic_missing", "later", false)
	w.inOrder("later", 200)
	w.inOrder("there", 200)
}

// The scout empties the queue while Publish goes on: nothing may overtake.
func TestOrderHoldsWhileTopicBecomesKnown(t *testing.T) {
	c := fake(t)
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	all := w.numbered("later", 0, 60_000)
	w.condition("topic_missing", "later", true)
	if err := c.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	w.condition("topic_missing", "later", false) // told just before the queue is emptied
	all = append(all, w.numbered("later", len(all), 40_000)...)
	w.delivered(all...)
	w.inOrder("later", len(all))
}

func TestMissingTopicIsCreated(t *testing.T) {
	c := fake(t)
	cfg := config(c.ListenAddrs()...)
	cfg.CreateTopics, cfg.CreatePartitions = true, 4
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.numbered("made", 0, 50)...)
	w.inOrder("made", 50)
	if n := len(c.PartitionInfos("made")); n != 4 {
		t.Errorf("%d partitions", n)
	}
}

// Nobody may create topics: that is told, and the messages wait as without the setting.
func TestCreatingIsRefused(t *testing.T) {
	c := fake(t)
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, Count: -1})
	cfg := config(c.ListenAddrs()...)
	cfg.CreateTopics = true
	w := newWorld(t, cfg)
	w.begin()
	s := w.publish("made", "k", "0")
	if got := w.condition("topic_missing", "made", true); !strings.Contains(got.Hint, "POLICY_VIOLATION") {
		t.Errorf("hint %q", got.Hint)
	}
	fault.Remove()
	w.delivered(s)
}

func TestTopicIsDeletedAndMadeAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.numbered("a", 0, 10)...)
	if err := errors.Join(c.DeleteTopic("a"), c.CreateTopic("a", 2, nil)); err != nil {
		t.Fatal(err)
	}
	// franz-go does not take over the id of the new topic: what is under way
	// fails, and the next leadership finds it.
	for range 3 {
		if w.publish("a", "k", "0").wait() == nil {
			break
		}
		w.begin()
	}
	w.delivered(w.numbered("a", 1, 10)...)
	w.inOrder("a", 11)
}

// A leadership that ended does not wait for a topic that is gone for good.
func TestBeginGivesUpOnDeletedTopic(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a", "b"))
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.publish("a", "k", "0"), w.publish("b", "k", "0"))
	if err := c.DeleteTopic("a"); err != nil {
		t.Fatal(err)
	}
	lost := w.publish("a", "k", "1")
	w.condition("topic_missing", "a", true)
	if !lost.open() {
		t.Error("a message of the deleted topic is settled")
	}
	w.delivered(w.publish("b", "k", "1"))
	w.begin()
	if lost.open() {
		t.Error("begin returned and a message is unsettled")
	}
	if err := lost.wait(); err == nil || errors.Is(err, relay.ErrFatal) || errors.Is(err, relay.ErrPoison) {
		t.Errorf("settled with %v", err)
	}
	w.delivered(w.publish("b", "k", "2"))
	w.inOrder("b", 3)
}

func TestOversizeRowIsPoison(t *testing.T) {
	c := fake(t)
	if err := errors.Join(c.CreateTopic("small", 3, map[string]string{"max.message.bytes": "2000"}), c.CreateTopic("other", 1, nil)); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	before := w.numbered("small", 0, 500) // many more than one batch of that topic
	large := w.publish("small", "k", strings.Repeat("x", 2000))
	after := w.publish("small", "k", "after")
	w.delivered(before...)
	err := large.wait()
	if !errors.Is(err, relay.ErrPoison) || !strings.Contains(err.Error(), "row-501") || !strings.Contains(err.Error(), "2000") {
		t.Errorf("settled with %v", err)
	}
	if err := after.wait(); err == nil || errors.Is(err, relay.ErrPoison) {
		t.Errorf("the message after it settled with %v: it is neither published nor bad itself", err)
	}
	w.delivered(w.numbered("other", 0, 10)...)
	w.begin()
	w.delivered(w.numbered("small", 500, 10)...)
	w.inOrder("small", 510)
}

// A row that fits exactly is published, one byte more is refused before it is
// sent. The limit is the Java producer's upper bound, which lies a few bytes
// above what the broker counts, so that nothing passes and is refused there.
func TestLimitIsExact(t *testing.T) {
	c := fake(t)
	if err := c.CreateTopic("small", 1, map[string]string{"max.message.bytes": "2000"}); err != nil {
		t.Fatal(err)
	}
	cfg := config(c.ListenAddrs()...)
	cfg.Compression = "none"
	w := newWorld(t, cfg)
	fits := 0
	for size := 1650; size < 1800; size++ {
		w.begin()
		if w.publish("small", "k", strings.Repeat("x", size)).wait() != nil {
			break
		}
		fits = size
	}
	for size := range 3 {
		w.begin()
		err := w.publish("small", "k", strings.Repeat("x", fits+1+size)).wait()
		if !errors.Is(err, relay.ErrPoison) || errors.Is(err, kerr.MessageTooLarge) {
			t.Errorf("%d bytes settled with %v", fits+1+size, err)
		}
	}
	if fits < 1700 || fits > 1790 {
		t.Errorf("at most %d bytes fit", fits)
	}
}

func TestNullKeyOnCompactedTopicIsPoison(t *testing.T) {
	c := fake(t)
	if err := c.CreateTopic("compacted", 1, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.publish("compacted", "k", "0"))
	if err := w.publish("compacted", "", "1").wait(); !errors.Is(err, relay.ErrPoison) {
		t.Errorf("settled with %v", err)
	}
	w.begin()
	w.delivered(w.publishMessage(&relay.Message{Topic: "compacted", Key: []byte{}, Value: []byte("1")})) // empty is not null
	w.inOrder("compacted", 2)
}

func TestImpossibleTopicIsPoison(t *testing.T) {
	w := newWorld(t, config(fake(t).ListenAddrs()...))
	for _, name := range []string{"", ".", "..", "a b", "ä", strings.Repeat("x", 250)} {
		w.begin()
		if err := w.publish(name, "k", "0").wait(); !errors.Is(err, relay.ErrPoison) {
			t.Errorf("topic %q settled with %v", name, err)
		}
	}
}

func TestForbiddenTopicHalts(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Metadata} {
		fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: "a", Err: kerr.TopicAuthorizationFailed, Count: -1})
		w := newWorld(t, config(c.ListenAddrs()...))
		w.begin()
		err := w.publish("a", "k", "0").wait()
		if !errors.Is(err, relay.ErrFatal) || !strings.Contains(relay.HintText(err), "--topic 'a'") {
			t.Errorf("%v: settled with %v, hint %q", key, err, relay.HintText(err))
		}
		fault.Remove()
		w.begin()
		w.delivered(w.publish("a", "k", "0"))
	}
}

// Settings may be hidden from the relay; what it may write it still writes.
func TestForbiddenSettings(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "a"))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	w.delivered(w.numbered("a", 0, 10)...)
}

func TestTimestamps(t *testing.T) {
	c := fake(t)
	if err := errors.Join(
		c.CreateTopic("hour", 1, map[string]string{"retention.ms": "3600000"}),
		c.CreateTopic("ever", 1, map[string]string{"retention.ms": "-1"}),
	); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, config(c.ListenAddrs()...))
	w.begin()
	now := time.Now().Truncate(time.Millisecond)
	for _, age := range []time.Duration{time.Minute, 40 * time.Minute} {
		for _, topic := range []string{"hour", "ever"} {
			w.delivered(w.publishMessage(&relay.Message{Topic: topic, Value: []byte(age.String()), CommittedAt: now.Add(-age)}))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	records, err := landed(ctx, w.cfg.Brokers, "hour", "ever")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		age, _ := time.ParseDuration(string(r.Value))
		committed := r.Timestamp.Equal(now.Add(-age))
		if want := r.Topic == "ever" || age == time.Minute; committed != want {
			t.Errorf("topic %s, committed %s ago: timestamp %s after now", r.Topic, age, r.Timestamp.Sub(now))
		}
	}
	if len(records) != 4 {
		t.Errorf("%d records", len(records))
	}
}
