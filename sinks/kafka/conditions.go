package kafka

import (
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// Reasons of the conditions that the sink reports.
const (
	reasonUnreachable  = "kafka_unreachable"
	reasonTopicMissing = "topic_missing"
	// reasonBarred: an open transaction keeps the checkpoint from being read.
	reasonBarred = "checkpoint_barred"
)

type conditionKey struct{ reason, topic string }

// conditions remembers what is reported, so that each change is reported once
// and a new leadership hears of what still holds.
type conditions struct {
	mu     sync.Mutex
	report func(relay.Condition)
	active map[conditionKey]relay.Condition
}

// attach sends what holds, and from now on every change, to report; nil is allowed.
func (c *conditions) attach(report func(relay.Condition)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report = report
	for _, condition := range c.active {
		c.tell(condition)
	}
}

// set reports that reason holds for topic, unless that was already told with the same hint.
func (c *conditions) set(reason, topic, hint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := conditionKey{reason, topic}
	old, known := c.active[key]
	if known && old.Hint == hint {
		return
	}
	condition := relay.Condition{Reason: reason, Topic: topic, Since: time.Now(), Hint: hint}
	if known {
		condition.Since = old.Since
	}
	if c.active == nil {
		c.active = make(map[conditionKey]relay.Condition)
	}
	c.active[key] = condition
	c.tell(condition)
}

// clear reports that reason no longer holds for topic, if it did.
func (c *conditions) clear(reason, topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := conditionKey{reason, topic}
	if _, known := c.active[key]; known {
		delete(c.active, key)
		c.tell(relay.Condition{Reason: reason, Topic: topic})
	}
}

// clearAll reports that nothing holds any more.
func (c *conditions) clearAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.active {
		c.tell(relay.Condition{Reason: key.reason, Topic: key.topic})
	}
	clear(c.active)
}

func (c *conditions) tell(condition relay.Condition) {
	if c.report != nil {
		c.report(condition)
	}
}
