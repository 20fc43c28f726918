package kafka

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// limits is what a topic takes, from its settings.
type limits struct {
	maxBytes    int           // of a record batch
	compacted   bool          // then every record needs a key
	retention   time.Duration // records older than this are deleted; 0: never
	maxBehind   time.Duration // a record's timestamp may lie so far before the broker's clock; 0: no limit
	maxAhead    time.Duration // and so far after it
	partitions  int           // when its settings were read
	unexplained bool          // the settings could not be read; Kafka's defaults are assumed
}

// defaultMaxBytes is Kafka's default of message.max.bytes.
const defaultMaxBytes = 1048588

// Names of the settings that count. message.timestamp.difference.max.ms is what
// brokers before 3.6 have in place of before and after; Kafka 4 has it no more.
const (
	configMaxBytes   = "max.message.bytes"
	configCleanup    = "cleanup.policy"
	configRetention  = "retention.ms"
	configType       = "message.timestamp.type"
	configBefore     = "message.timestamp.before.max.ms"
	configAfter      = "message.timestamp.after.max.ms"
	configDifference = "message.timestamp.difference.max.ms"
)

func newLimits(partitions int, settings map[string]string) *limits {
	l := &limits{maxBytes: defaultMaxBytes, partitions: partitions, unexplained: len(settings) == 0}
	if n, err := strconv.Atoi(settings[configMaxBytes]); err == nil && n > 0 {
		l.maxBytes = n
	}
	l.maxBytes = min(l.maxBytes, maxRequestBytes-1024) // room for the request around the batch
	for policy := range strings.SplitSeq(settings[configCleanup], ",") {
		switch strings.TrimSpace(policy) {
		case "compact":
			l.compacted = true
		case "delete":
			l.retention = millis(settings[configRetention])
		}
	}
	if settings[configType] == "LogAppendTime" {
		return l // the broker sets its own time and checks ours not
	}
	difference := millis(settings[configDifference])
	l.maxBehind = lesser(millis(settings[configBefore]), difference)
	l.maxAhead = lesser(millis(settings[configAfter]), difference)
	return l
}

// millis reads a setting in milliseconds; 0 stands for no limit, which Kafka writes as -1 or the largest long.
func millis(s string) time.Duration {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/int64(time.Millisecond) {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// lesser is the stricter of two limits, of which 0 is none.
func lesser(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timestamp is what a record committed then carries: that time, unless the
// broker would refuse it, or delete the record soon after it came. Half of each
// limit is left for clocks that differ and for the wait in an outage.
func (l *limits) timestamp(committed, now time.Time) time.Time {
	age := now.Sub(committed)
	switch {
	case l.retention != 0 && age > l.retention/2,
		l.maxBehind != 0 && age > l.maxBehind/2,
		l.maxAhead != 0 && -age > l.maxAhead/2:
		return now
	}
	return committed
}

var errNoKey = errors.New("it has no key, which a compacted topic needs")

// check returns how large r may get, and why the topic would refuse it, nil if it would not.
func (l *limits) check(r *record) (size int, err error) {
	if l.compacted && r.kafka.Key == nil {
		return 0, errNoKey
	}
	size = r.estimate()
	if size > l.maxBytes {
		return size, &tooLargeError{size, l.maxBytes}
	}
	return size, nil
}

// checkName returns why no topic can be called name.
func checkName(name string) error {
	if name == "" || len(name) > 249 || name == "." || name == ".." {
		return fmt.Errorf("%.300q is no name for a topic", name)
	}
	for i := range len(name) {
		c := name[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("%q is no name for a topic", name)
		}
	}
	return nil
}
