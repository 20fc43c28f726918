package securitytest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
)

// brokers is a Kafka whose clients come over protocol, with one topic.
type brokers struct {
	*kafka.Cluster
	t     *testing.T
	ca    *authority
	admin *kadm.Client // past all locks
	topic string

	keystore string // file with the broker's certificate
}

func newBrokers(t *testing.T, protocol string, properties ...string) *brokers {
	t.Helper()
	b := &brokers{t: t, ca: newAuthority(t, "authority of the brokers")}
	server := b.ca.issue("broker")
	b.keystore = put(t, slices.Concat(server.key, server.cert))
	b.Cluster = kafka.Start(t, 1, append([]string{
		"listener.security.protocol.map=CLIENT:" + protocol + ",INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"listener.name.client.ssl.keystore.type=PEM", "listener.name.client.ssl.truststore.type=PEM",
		"listener.name.client.ssl.keystore.location=" + b.keystore,
		"listener.name.client.ssl.truststore.location=" + b.ca.file,
	}, properties...)...)
	b.Private(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Direct()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b.admin = kadm.NewClient(client)
	b.topic = b.Topic(t, 1, nil)
	return b
}

// environ is the configuration of a relay to b; later variables win.
func (b *brokers) environ(url string, more ...string) []string {
	return append([]string{
		"OUTRIDER_DATABASE_URL=" + url, "OUTRIDER_NAME=s_" + strings.ToLower(rand.Text()),
		"OUTRIDER_KAFKA_BROKERS=" + strings.Join(b.Brokers(), ","), "OUTRIDER_KAFKA_TLS=true", "OUTRIDER_KAFKA_TLS_CA_FILE=" + b.ca.file,
	}, more...)
}

// outbox is a database of a test with the tables in it.
func outbox(t *testing.T) string {
	t.Helper()
	url := postgres.Start(t, 0).URL()
	if _, err := migrate.Up(t.Context(), postgres.Connect(t, url), migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	return url
}

func write(t *testing.T, url, topic string) (id string) {
	t.Helper()
	err := postgres.Connect(t, url).QueryRow(t.Context(), `INSERT INTO outbox.events (topic, key, payload) VALUES ($1, 'k', '1') RETURNING id::text`, topic).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// arrives waits until the topic holds a record with that value as its id.
func (b *brokers) arrives(p *program, topic, id string) {
	b.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Direct()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		found := false
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			found = found || slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "id" && string(h.Value) == id })
		})
		if found {
			return
		}
	}
	b.t.Fatalf("row %s does not arrive: %s", id, p.get("/status"))
}

// restart starts the broker anew with another certificate.
func (b *brokers) restart(server pair) {
	b.t.Helper()
	if err := os.WriteFile(b.keystore, slices.Concat(server.key, server.cert), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(b.Stop(b.t.Context(), 1), b.StartNode(b.t.Context(), 1)); err != nil {
		b.t.Fatal(err)
	}
}

// relays expects a row to arrive.
func (b *brokers) relays(p *program, url string) {
	b.t.Helper()
	b.arrives(p, b.topic, write(b.t, url, b.topic))
}

func TestKafkaWithCertificates(t *testing.T) {
	b := newBrokers(t, "SSL", "listener.name.client.ssl.client.auth=required")
	url := outbox(t)
	cert, key := b.ca.issue("relay").files(t)
	with := func(cert, key string) []string {
		return []string{"OUTRIDER_KAFKA_TLS_CERT_FILE=" + cert, "OUTRIDER_KAFKA_TLS_KEY_FILE=" + key}
	}
	p := start(t, b.environ(url, with(cert, key)...)...)
	p.awaits("leader", "")
	b.relays(p, url)

	// Rotated: what is there at the next connect counts. The old authority is gone from the broker.
	next := newAuthority(t, "next authority of the brokers")
	rotated, server := next.issue("relay"), next.issue("broker")
	for path, content := range map[string][]byte{cert: rotated.cert, key: rotated.key, b.ca.file: read(t, next.file)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.restart(server)
	b.relays(p, url)
	p.kill(15)

	stranger := newAuthority(t, "stranger")
	forged, forgedKey := stranger.issue("relay").files(t)
	late, lateKey := next.issue("relay", over).files(t)
	refused(t, b.environ(url), "kafka_tls", "certificate")
	refused(t, b.environ(url, with(forged, forgedKey)...), "kafka_tls", "certificate")
	refused(t, b.environ(url, with(late, lateKey)...), "kafka_tls", "certificate")
	refused(t, b.environ(url, append(with(cert, key), "OUTRIDER_KAFKA_TLS_CA_FILE="+stranger.file)...), "kafka_tls", "unknown authority")
	refused(t, b.environ(url, append(with(cert, key), "OUTRIDER_KAFKA_TLS_SERVER_NAME=elsewhere")...), "kafka_tls", "elsewhere")
}

func TestKafkaWithPasswords(t *testing.T) {
	const jaas = "listener.name.client.%s.sasl.jaas.config=org.apache.kafka.common.security."
	b := newBrokers(t, "SASL_SSL", "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		fmt.Sprintf(jaas, "plain")+`plain.PlainLoginModule required user_app="`+rightPassword+`";`,
		fmt.Sprintf(jaas, "scram-sha-256")+"scram.ScramLoginModule required;", fmt.Sprintf(jaas, "scram-sha-512")+"scram.ScramLoginModule required;")
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		user := kadm.UpsertSCRAM{User: "app", Mechanism: mechanism, Iterations: 4096, Password: rightPassword}
		if altered, err := b.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{user}); err != nil || altered.Error() != nil {
			t.Fatal(err, altered.Error())
		}
	}
	url := outbox(t)
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		password := put(t, []byte(rightPassword+"\n"))
		environ := b.environ(url, "OUTRIDER_KAFKA_SASL_MECHANISM="+mechanism, "OUTRIDER_KAFKA_SASL_USERNAME=app", "OUTRIDER_KAFKA_SASL_PASSWORD_FILE="+password)
		p := start(t, environ...)
		p.awaits("leader", "")
		b.relays(p, url)
		p.kill(15)
		if err := os.WriteFile(password, []byte("wrong-planted-password"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, environ, "kafka_authentication", "SASL_AUTHENTICATION_FAILED")
	}
}
