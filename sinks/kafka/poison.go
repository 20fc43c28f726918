package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/outrider-cdc/outrider/relay"
)

// poisonError says which row cannot be published, and why. It is made once for
// each record of a refused batch, hence no formatting until it is read.
type poisonError struct {
	row     string
	topic   string
	size    int // of the row
	brokers []string
	cause   error
}

func (c classifier) poison(m *relay.Message, cause error) error {
	return &poisonError{row: string(m.ID), topic: m.Topic, size: m.Size(), brokers: c.brokers, cause: cause}
}

func (e *poisonError) Error() string {
	return fmt.Sprintf("row %s cannot be published to topic %q: %v", e.row, e.topic, e.cause)
}

// Unwrap gives the class and the cause.
func (e *poisonError) Unwrap() []error { return []error{relay.ErrPoison, e.cause} }

// Mend implements [relay.Mendable].
func (e *poisonError) Mend() relay.Hint {
	const then = ", and the relay goes on by itself"
	large, _ := errors.AsType[*tooLargeError](e.cause)
	switch {
	case large != nil, errors.Is(e.cause, kerr.MessageTooLarge), errors.Is(e.cause, kerr.RecordListTooLarge):
		need := e.size + roomAroundRow
		if large != nil {
			need = large.size
		}
		return relay.Hint{Say: "let the topic take rows of this size" + then, Shell: e.alter(fmt.Sprintf("%s=%d", configMaxBytes, need))}
	case errors.Is(e.cause, errNoKey):
		return relay.Hint{Say: "a compacted topic takes no rows without a key: let it not be compacted" + then, Shell: e.alter(configCleanup + "=delete")}
	case errors.Is(e.cause, kerr.InvalidTimestamp):
		return relay.Hint{Say: "let the brokers set the time of the topic's records" + then, Shell: e.alter(configType + "=LogAppendTime")}
	case checkName(e.topic) != nil:
		return relay.Hint{Say: "no topic can have the name that the row gives: rename it", Env: "OUTRIDER_TOPIC_MAP=<name>:<another>"}
	}
	return relay.Hint{Say: "mend what the brokers refuse (their log may say more)" + then}
}

// roomAroundRow is at least what Kafka puts around the bytes of a row of few headers.
const roomAroundRow = 1024

// alter is a command that sets something of the topic.
func (e *poisonError) alter(setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s",
		strings.Join(e.brokers, ","), shellQuote(e.topic), setting)
}

// tooLargeError is a record that the topic's settings do not let in.
type tooLargeError struct{ size, limit int } // in bytes, as a batch of its own

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("it takes up to %d bytes, and max.message.bytes of the topic is %d", e.size, e.limit)
}
