package kafka

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// poison and halts are the codes with a class; every other code of Kafka has
// none, so that a new session sends everything again.
var (
	poison = []*kerr.Error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.InvalidTopicException, kerr.UnsupportedForMessageFormat,
	}
	halts = map[*kerr.Error]string{
		kerr.TopicAuthorizationFailed:           "kafka_authorization",
		kerr.ClusterAuthorizationFailed:         "kafka_authorization",
		kerr.TransactionalIDAuthorizationFailed: "kafka_authorization",
		kerr.SaslAuthenticationFailed:           "kafka_authentication",
		kerr.UnsupportedSaslMechanism:           "kafka_authentication",
		kerr.IllegalSaslState:                   "kafka_authentication",
		kerr.SecurityDisabled:                   "kafka_authentication",
		kerr.UnsupportedCompressionType:         "kafka_settings",
		kerr.InvalidRequiredAcks:                "kafka_settings",
		kerr.InvalidTransactionTimeout:          "kafka_settings",
		kerr.UnsupportedVersion:                 "kafka_version",
		kerr.PolicyViolation:                    "kafka_policy",
	}
)

func TestEveryCodeHasItsClass(t *testing.T) {
	c := classifier{brokers: []string{"b1:9092", "b2:9092"}, user: "app"}
	known := 0
	for code := int16(-1); code < 300; code++ {
		cause, ok := errors.AsType[*kerr.Error](kerr.ErrorForCode(code))
		if !ok || code != -1 && cause == kerr.UnknownServerError {
			continue
		}
		known++
		got := c.classify("orders", fmt.Errorf("in a wrapper: %w", cause))
		if !errors.Is(got, cause) {
			t.Errorf("%s: the cause is lost in %v", cause.Message, got)
		}
		wantPoison := false
		for _, p := range poison {
			wantPoison = wantPoison || p == cause
		}
		if isPoison(got) != wantPoison {
			t.Errorf("%s: poison is %v", cause.Message, isPoison(got))
		}
		halt, _ := errors.AsType[*relay.Halt](got)
		switch want, ok := halts[cause]; {
		case ok != (halt != nil):
			t.Errorf("%s: halted is %v", cause.Message, halt != nil)
		case ok && (halt.Reason != want || len(halt.Hints) == 0 || halt.Hints[0].Say == ""):
			t.Errorf("%s: reason %s, hints %v", cause.Message, halt.Reason, halt.Hints)
		}
		if errors.Is(got, relay.ErrFenced) {
			t.Errorf("%s: fenced, which a producer without transactions cannot be", cause.Message)
		}
	}
	if known < 130 {
		t.Errorf("walked over %d codes only", known)
	}
}

func TestWhatIsNoCodeIsRetried(t *testing.T) {
	c := classifier{}
	for _, err := range []error{
		kgo.ErrClientClosed, kgo.ErrMaxBuffered, io.EOF, errLeaseOver, errClosed,
		asDialError("tcp", errors.New("connection refused")), &net.DNSError{IsNotFound: true}, errors.New("anything"),
	} {
		if got := c.classify("a", err); isHalt(got) || isPoison(got) || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if c.classify("a", nil) != nil {
		t.Error("nil became an error")
	}
}

// The command must name what was forbidden, and survive a shell.
func TestACLHint(t *testing.T) {
	c := classifier{brokers: []string{"b1:9092", "b2:9092"}, user: "it's"}
	got := relay.HintText(c.classify("orders", kerr.TopicAuthorizationFailed))
	const want = `kafka-acls.sh --bootstrap-server b1:9092,b2:9092 --add --allow-principal 'User:it'\''s' --operation Write --operation Describe --operation DescribeConfigs --topic 'orders'`
	if !strings.Contains(got, want) {
		t.Errorf("hint %q, want %q", got, want)
	}
	c.user = ""
	if got := relay.HintText(c.classify("orders", kerr.ClusterAuthorizationFailed)); !strings.Contains(got, "'User:ANONYMOUS' --operation IdempotentWrite --cluster") {
		t.Errorf("hint %q", got)
	}
}

func TestPoisonNamesTheRow(t *testing.T) {
	m := relay.NewMessage(&relay.Message{ID: []byte("row-7"), Topic: "orders", Value: make([]byte, 2000)}, nil, func(error) {})
	err := classifier{brokers: []string{"b1:9092"}}.settled(m, kerr.MessageTooLarge)
	if !errors.Is(err, relay.ErrPoison) || !errors.Is(err, kerr.MessageTooLarge) || !strings.Contains(err.Error(), "row-7") {
		t.Errorf("%v", err)
	}
	mend, ok := errors.AsType[relay.Mendable](err)
	if !ok || !strings.HasPrefix(mend.Mend().Shell, "kafka-configs.sh --bootstrap-server b1:9092 --alter --entity-type topics --entity-name 'orders' --add-config max.message.bytes=3") {
		t.Errorf("to mend it: %+v", mend.Mend())
	}
	follows := &followsError{err}
	if errors.Is(follows, relay.ErrPoison) || !strings.Contains(follows.Error(), "row-7") {
		t.Errorf("%v must not be poison itself", follows)
	}
}
