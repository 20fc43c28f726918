package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/outrider-cdc/outrider/relay"
)

// classifier sorts errors into the classes of package relay. It knows what its hints need.
type classifier struct {
	brokers     []string
	user        string // of SASL
	mechanism   string // of SASL
	certificate bool   // the client shows one
	principal   string // whom to allow; "": follows from the above
}

// classify sorts err, which ended a produce (of topic) or a request ("").
//
// What a promise brings is what franz-go gave up on, so whether Kafka calls the
// code retriable says nothing here: the question is only whether the message is
// bad, the setup is, or neither. Neither is the answer for whatever is not
// listed: then a new session sends everything again, which is always safe.
// Authorization is never poison, although it fails single messages.
func (c classifier) classify(topic string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*relay.Halt](err); ok {
		return err
	}
	code, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return c.classifyConnection(err)
	}
	switch code {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.InvalidTopicException, kerr.UnsupportedForMessageFormat:
		return fmt.Errorf("%w: %w", relay.ErrPoison, err)
	case kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed:
		return c.authorizationHalt(code, topic, err)
	case kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState, kerr.SecurityDisabled:
		return c.authenticationHalt(code, err)
	}
	return settingsHalt(code, err)
}

// classifyConnection sorts errors that no broker sent.
func (c classifier) classifyConnection(err error) error {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return tlsHalt(err, relay.Hint{Say: "the listener does not speak TLS: name its TLS port, or connect without", Env: envPrefix + "TLS=false"})
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return tlsHalt(err, relay.Hint{Say: "name the host as in the brokers' certificates", Env: envPrefix + "TLS_SERVER_NAME=<name>"})
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return tlsHalt(err, relay.Hint{Say: "trust the authority that signed the brokers' certificates; the file is read at each connect", Env: envPrefix + "TLS_CA_FILE=<path>"})
	}
	if alerted(err) {
		return tlsHalt(err, relay.Hint{
			Say: "the brokers refuse the handshake; if they ask for a client certificate, show one they trust",
			Env: envPrefix + "TLS_CERT_FILE=<path>\n" + envPrefix + "TLS_KEY_FILE=<path>",
		})
	}
	return err
}

// alerted reports whether the other side ended a handshake with an alert, which
// crypto/tls returns as an OpError of this Op (under our own of dialling).
func alerted(err error) bool {
	for {
		op, ok := errors.AsType[*net.OpError](err)
		if !ok {
			return false
		}
		if op.Op == "remote error" {
			return true
		}
		err = op.Err
	}
}

func tlsHalt(err error, hint relay.Hint) error {
	return &relay.Halt{Reason: "kafka_tls", Err: err, Hints: []relay.Hint{hint}}
}

func (c classifier) authenticationHalt(code *kerr.Error, err error) error {
	h := &relay.Halt{Reason: "kafka_authentication", Err: fmt.Errorf("kafka refuses the login: %w", err)}
	hint := relay.Hint{
		Say: "take a mechanism that the listener has, or a listener that has the mechanism",
		Env: envPrefix + "SASL_MECHANISM=scram-sha-512",
	}
	if code == kerr.SaslAuthenticationFailed {
		switch c.mechanism {
		case mechanismOAuth:
			hint = relay.Hint{
				Say: "give a token that is not over and has the issuer, audience and scope that the brokers want; it is read, or asked for, again at each login",
				Env: envPrefix + "SASL_OAUTH_TOKEN_FILE=<path>",
			}
		case mechanismAWS:
			hint = relay.Hint{Say: "allow kafka-cluster:Connect on the cluster to whom AWS knows this process as; the policy:", Shell: "outrider config --acls"}
		default:
			hint = relay.Hint{
				Say: "correct user and password; a password file is read again at each connect",
				Env: envPrefix + "SASL_USERNAME=<user>\n" + envPrefix + "SASL_PASSWORD_FILE=<path>",
			}
		}
	}
	h.Hints = []relay.Hint{hint}
	return h
}

func (c classifier) authorizationHalt(code *kerr.Error, topic string, err error) error {
	h := &relay.Halt{Reason: "kafka_authorization", Err: err}
	switch code {
	case kerr.TopicAuthorizationFailed:
		if topic == "" {
			topic = "*"
		}
		h.Err = fmt.Errorf("topic %q: %w", topic, err)
		h.Hints = []relay.Hint{{
			Say:   "allow the relay to write to the topic",
			Shell: c.acl("--operation Write --operation Describe --operation DescribeConfigs --topic " + shellQuote(topic)),
		}}
	case kerr.TransactionalIDAuthorizationFailed:
		h.Hints = []relay.Hint{{
			Say:   "allow the relay its transactional id",
			Shell: c.acl("--operation Write --operation Describe --transactional-id outrider. --resource-pattern-type prefixed"),
		}}
	default:
		h.Hints = []relay.Hint{{
			Say:   "allow the relay to write idempotently, which brokers before Kafka 3.0 want granted on the cluster",
			Shell: c.acl("--operation IdempotentWrite --cluster"),
		}}
	}
	return h
}

// settingsHalt sorts what only another configuration, here or at the brokers,
// can mend. Anything else it returns as it is.
func settingsHalt(code *kerr.Error, err error) error {
	var hint relay.Hint
	reason := "kafka_settings"
	switch code {
	case kerr.UnsupportedCompressionType:
		hint = relay.Hint{Say: "take a compression that the brokers know", Env: envPrefix + "COMPRESSION=none"}
	case kerr.UnsupportedVersion:
		reason = "kafka_version"
		hint = relay.Hint{Say: "upgrade the brokers: Kafka 2.1 or later is needed"}
	case kerr.PolicyViolation:
		reason = "kafka_policy"
		hint = relay.Hint{Say: "a policy of the brokers forbids it; their log names the policy"}
	case kerr.InvalidRequiredAcks:
		hint = relay.Hint{Say: "the brokers must accept acks=all"}
	case kerr.InvalidTransactionTimeout:
		hint = relay.Hint{Say: "raise transaction.max.timeout.ms of the brokers"}
	default:
		return err
	}
	return &relay.Halt{Reason: reason, Err: err, Hints: []relay.Hint{hint}}
}

// acl is a command that grants what to the relay.
func (c classifier) acl(what string) string {
	principal := "User:" + c.user
	switch {
	case c.principal != "":
		principal = c.principal
	case c.user != "":
	case c.certificate:
		principal = "User:<distinguished name of the certificate>"
	default:
		principal = "User:ANONYMOUS" // Kafka's name for whoever did not log in
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal %s %s",
		strings.Join(c.brokers, ","), shellQuote(principal), what)
}

// createHint is the command that makes a missing topic.
func (c classifier) createHint(topic string) string {
	return fmt.Sprintf("create it: kafka-topics.sh --bootstrap-server %s --create --topic %s; or set %sCREATE_TOPICS=true",
		strings.Join(c.brokers, ","), shellQuote(topic), envPrefix)
}

// unreachableHint says what asking the brokers ended with.
func (c classifier) unreachableHint(err error) string {
	hint := fmt.Sprintf("brokers %s do not answer: %v", strings.Join(c.brokers, ","), err)
	if errors.Is(err, io.EOF) {
		hint += "; if they are up, they hang up because the listener wants TLS or SASL, or does not, or refuses the login: see " +
			envPrefix + "TLS and " + envPrefix + "SASL_*"
	}
	return hint
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
