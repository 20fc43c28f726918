package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// certificate makes a self-signed certificate for 127.0.0.1 and the name broker, and returns its file and its key's.
func certificate(t *testing.T) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, DNSNames: []string{"broker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pemOf(der)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert, file(t, certPEM), file(t, keyPEM)
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// secured is a cluster with TLS, and with every mechanism of SASL for user app.
func secured(t *testing.T) (kafka.Config, *kfake.Cluster) {
	t.Helper()
	cert, certFile, _ := certificate(t)
	c := fake(t, kfake.SeedTopics(1, "a"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}),
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", "right"),
		kfake.Superuser("SCRAM-SHA-256", "app", "right"), kfake.Superuser("SCRAM-SHA-512", "app", "right"))
	cfg := config(c.ListenAddrs()...)
	cfg.TLS, cfg.TLSCAFile = true, certFile
	cfg.SASLUsername, cfg.SASLPassword = "app", secret.New("right")
	return cfg, c
}

// refuseLogins makes the fake answer logins as a broker answers wrong ones; by itself it hangs up.
func refuseLogins(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
}

var mechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}

func TestLogin(t *testing.T) {
	cfg, _ := secured(t)
	for _, cfg.SASLMechanism = range mechanisms {
		w := newWorld(t, cfg)
		w.begin()
		w.delivered(w.publish("a", "k", "0"))
	}
}

// halts begins and expects to be refused.
func halts(t *testing.T, cfg kafka.Config, reason, hint string) error {
	t.Helper()
	w := newWorld(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := w.sink.Begin(ctx, w.source())
	halt, ok := errors.AsType[*relay.Halt](err)
	if !ok || halt.Reason != reason || !strings.Contains(relay.HintText(err), hint) {
		t.Errorf("begin returned %v, hint %q", err, relay.HintText(err))
	}
	if err != nil && strings.Contains(err.Error(), "wrong-password") {
		t.Error("the error tells the password")
	}
	return err
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }

func TestRefusedLoginHalts(t *testing.T) {
	cfg, c := secured(t)
	refuseLogins(c)
	cfg.SASLPassword = secret.New("wrong-password")
	for _, cfg.SASLMechanism = range mechanisms {
		_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_PASSWORD_FILE=")
	}
	cfg.SASLPassword = secret.FromFile(file(t, nil) + ".missing")
	_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_PASSWORD_FILE=")
}

func TestUnknownMechanismHalts(t *testing.T) {
	cfg, c := secured(t)
	c.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		return resp, nil, true
	})
	cfg.SASLMechanism = "plain"
	_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_MECHANISM=")
}

// A broker that hangs up on a login may be one that stops: the sink waits, and
// the password that is mended meanwhile counts at the next connect.
func TestPasswordIsReadAgain(t *testing.T) {
	cfg, _ := secured(t)
	cfg.SASLMechanism = "scram-sha-512"
	name := file(t, []byte("wrong-password\n"))
	cfg.SASLPassword = secret.FromFile(name)
	w := newWorld(t, cfg)
	begun := make(chan error, 1)
	go func() {
		_, err := w.sink.Begin(t.Context(), w.source())
		begun <- err
	}()
	if got := w.condition("kafka_unreachable", "", true); !strings.Contains(got.Hint, "OUTRIDER_KAFKA_SASL_") {
		t.Errorf("hint %q", got.Hint)
	}
	if err := os.WriteFile(name, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	w.delivered(w.publish("a", "k", "0"))
}

func TestLoginOnKafka(t *testing.T) {
	c := brokers.Start(t, 1,
		"listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms=PLAIN",
		`listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app="right";`)
	cfg := config(c.Brokers()...)
	cfg.SASLMechanism, cfg.SASLAllowPlaintext = "plain", true
	cfg.SASLUsername, cfg.SASLPassword = "app", secret.New("right")
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.publish(c.Topic(t, 1, nil), "k", "0"))

	cfg.SASLPassword = secret.New("wrong-password")
	_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_PASSWORD_FILE=")

	cfg.SASLMechanism = "scram-sha-256"
	_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_MECHANISM=")
}

func TestTLSProblemsHalt(t *testing.T) {
	cfg, _ := secured(t)
	cfg.SASLMechanism = "scram-sha-512"
	_, stranger, _ := certificate(t)

	untrusted := cfg
	untrusted.TLSCAFile = stranger
	_ = halts(t, untrusted, "kafka_tls", "OUTRIDER_KAFKA_TLS_CA_FILE=")

	renamed := cfg
	renamed.TLSServerName = "elsewhere"
	_ = halts(t, renamed, "kafka_tls", "OUTRIDER_KAFKA_TLS_SERVER_NAME=")
	renamed.TLSServerName = "broker"
	newWorld(t, renamed).begin()

	missing := cfg
	missing.TLSCAFile += ".missing"
	_ = halts(t, missing, "kafka_tls_files", "OUTRIDER_KAFKA_TLS_CA_FILE=")

	empty := cfg
	empty.TLSCAFile = file(t, []byte("nothing"))
	_ = halts(t, empty, "kafka_tls_files", "OUTRIDER_KAFKA_TLS_CA_FILE=")
}

func TestClientCertificate(t *testing.T) {
	cert, certFile, keyFile := certificate(t)
	_, strangerCert, strangerKey := certificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	// With 1.2 a client hears of a refused certificate within the handshake, with 1.3 when it reads first.
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := fake(t, kfake.SeedTopics(1, "a"), kfake.TLS(&tls.Config{
			Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
			MaxVersion: version, MinVersion: version,
		}))
		cfg := config(c.ListenAddrs()...)
		cfg.TLS, cfg.TLSCAFile, cfg.TLSCertFile, cfg.TLSKeyFile = true, certFile, certFile, keyFile
		w := newWorld(t, cfg)
		w.begin()
		w.delivered(w.publish("a", "k", "0"))
		cfg.TLSCertFile, cfg.TLSKeyFile = strangerCert, strangerKey
		_ = halts(t, cfg, "kafka_tls", "OUTRIDER_KAFKA_TLS_CERT_FILE=")
	}
}

// A listener that wants TLS only hangs up: that may be an outage too, so the
// sink waits, and says what else it may be.
func TestPlaintextToTLSListenerIsTold(t *testing.T) {
	cfg, _ := secured(t)
	cfg.TLS, cfg.TLSCAFile, cfg.SASLMechanism, cfg.SASLUsername, cfg.SASLPassword = false, "", "", "", secret.Text{}
	w := newWorld(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan error, 1)
	go func() {
		_, err := w.sink.Begin(ctx, w.source())
		begun <- err
	}()
	if got := w.condition("kafka_unreachable", "", true); !strings.Contains(got.Hint, "OUTRIDER_KAFKA_TLS") {
		t.Errorf("hint %q", got.Hint)
	}
	cancel()
	if err := <-begun; !errors.Is(err, context.Canceled) {
		t.Errorf("begin returned %v", err)
	}
}
