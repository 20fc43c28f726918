package kafka_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	brokers "github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// issuer is an OpenID provider: it signs tokens, shows its key to brokers, and
// gives tokens to a client that knows the secret.
type issuer struct {
	t      *testing.T
	key    *rsa.PrivateKey
	secret atomic.Value  // string
	broken atomic.Bool   // answers 503
	asked  atomic.Int64  // for tokens
	life   time.Duration // of the tokens that are given
	server *httptest.Server
}

func newIssuer(t *testing.T, start func(http.Handler) *httptest.Server) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key, life: time.Hour}
	i.secret.Store("right")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("POST /token", i.give)
	i.server = start(mux)
	t.Cleanup(i.server.Close)
	return i
}

func (i *issuer) keys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": raw(i.key.N.Bytes()), "e": raw(big.NewInt(int64(i.key.E)).Bytes()),
	}}})
}

// give is RFC 6749, 2.3.1, 4.4 and 5.2. A refusal repeats the secret, as a careless provider might.
func (i *issuer) give(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	user, password, ok := r.BasicAuth()
	if !ok {
		user, password = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case i.broken.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case user != "app" || password != i.secret.Load():
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "no client has " + password})
	case r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "write" || r.PostFormValue("audience") != "kafka":
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request"})
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": i.token(i.life, "kafka"), "token_type": "Bearer", "expires_in": int(i.life.Seconds())})
	}
}

func raw(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// token is a signed one (RFC 7515, RS256) that ends after life, which may be over.
func (i *issuer) token(life time.Duration, audience string) string {
	i.t.Helper()
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "test", "sub": "app", "aud": audience, "scope": "write", "iat": now.Add(min(life, 0) - time.Minute).Unix(), "exp": now.Add(life).Unix(),
	})
	if err != nil {
		i.t.Fatal(err)
	}
	text := raw([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + raw(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		i.t.Fatal(err)
	}
	return text + "." + raw(signature)
}

// bearerKafka is a broker that checks tokens of i, by Kafka's own validator.
func bearerKafka(t *testing.T, i *issuer, properties ...string) *brokers.Cluster {
	t.Helper()
	const listener = "listener.name.client.oauthbearer.sasl."
	// Kafka asks no address that is not allowed on the command line (since 3.9.1 and 4.0).
	t.Setenv("JAVA_TOOL_OPTIONS", "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+i.server.URL+"/keys")
	return brokers.Start(t, 1, append([]string{
		"listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms=OAUTHBEARER",
		"listener.name.client.sasl.oauthbearer.jwks.endpoint.url=" + i.server.URL + "/keys",
		"listener.name.client.sasl.oauthbearer.expected.audience=kafka",
		"listener.name.client.sasl.oauthbearer.expected.issuer=test",
		"listener.name.client.sasl.oauthbearer.clock.skew.seconds=0",
		listener + "server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
		listener + "jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
	}, properties...)...)
}

func bearerConfig(c *brokers.Cluster) kafka.Config {
	cfg := config(c.Brokers()...)
	cfg.SASLMechanism, cfg.SASLAllowPlaintext = "oauthbearer", true
	return cfg
}

func TestTokensOnKafka(t *testing.T) {
	i := newIssuer(t, httptest.NewServer)
	c := bearerKafka(t, i)
	cfg := bearerConfig(c)
	cfg.SASLOAuthToken = secret.New(i.token(time.Hour, "kafka"))
	cfg.SASLOAuthExtensions = map[string]string{"logicalCluster": "lkc-1"}
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.publish(c.Topic(t, 1, nil), "k", "0"))

	stranger := newIssuer(t, httptest.NewServer)
	for name, token := range map[string]string{
		"over": i.token(-time.Minute, "kafka"), "of another audience": i.token(time.Hour, "elsewhere"),
		"of another key": stranger.token(time.Hour, "kafka"), "none at all": "planted-secret",
	} {
		t.Log("a token that is " + name)
		cfg.SASLOAuthToken = secret.New(token)
		err := halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_OAUTH_TOKEN_FILE=")
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
}

// A projected token is short-lived: brokers ask for a new login before it is
// over (KIP-368), and then the file counts as it is.
func TestTokenFileIsReadAgain(t *testing.T) {
	i := newIssuer(t, httptest.NewServer)
	c := bearerKafka(t, i, "listener.name.client.oauthbearer.connections.max.reauth.ms=3000")
	cfg := bearerConfig(c)
	name := filepath.Join(t.TempDir(), "token")
	put := func(token string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := i.token(3*time.Second, "kafka")
	put(first)
	cfg.SASLOAuthToken = secret.FromFile(name)
	w := newWorld(t, cfg)
	w.begin()
	topic := c.Topic(t, 1, nil)
	w.delivered(w.publish(topic, "k", "0"))
	put(i.token(time.Hour, "kafka"))
	began := time.Now()
	for n := 1; time.Since(began) < 6*time.Second; n++ { // beyond the first token's end
		w.delivered(w.publish(topic, "k", fmt.Sprint(n)))
		<-time.After(50 * time.Millisecond)
	}
	cfg.SASLOAuthToken = secret.New(first)
	_ = halts(t, cfg, "kafka_authentication", "SASL_OAUTH_TOKEN_FILE=")
}

func TestClientCredentialsOnKafka(t *testing.T) {
	i := newIssuer(t, httptest.NewServer)
	// The same provider under TLS, as clients want it.
	front := httptest.NewTLSServer(i.server.Config.Handler)
	t.Cleanup(front.Close)
	c := bearerKafka(t, i)
	cfg := bearerConfig(c)
	authority := file(t, pemOf(front.Certificate().Raw))
	cfg.SASLOAuthTokenURL, cfg.SASLOAuthCAFile = front.URL+"/token", authority
	cfg.SASLOAuthClientID, cfg.SASLOAuthClientSecret = "app", secret.New("right")
	cfg.SASLOAuthScope, cfg.SASLOAuthAudience = "write", "kafka"
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.publish(c.Topic(t, 1, nil), "k", "0"))
	if i.asked.Load() == 0 {
		t.Error("nobody asked for a token")
	}

	wrong := cfg
	wrong.SASLOAuthClientSecret = secret.New("wrong-password")
	_ = halts(t, wrong, "kafka_authentication", "OUTRIDER_KAFKA_SASL_OAUTH_CLIENT_SECRET_FILE=")
	wrong = cfg
	wrong.SASLOAuthScope = "all"
	_ = halts(t, wrong, "kafka_authentication", "OUTRIDER_KAFKA_SASL_OAUTH_CLIENT_ID=")
	wrong = cfg
	wrong.SASLOAuthCAFile = ""
	_ = halts(t, wrong, "kafka_tls", "OUTRIDER_KAFKA_SASL_OAUTH_CA_FILE=")
	wrong.SASLOAuthCAFile, wrong.SASLOAuthTokenURL = authority, strings.Replace(front.URL, "127.0.0.1", "localhost", 1)+"/token"
	_ = halts(t, wrong, "kafka_tls", "OUTRIDER_KAFKA_SASL_OAUTH_CA_FILE=")
	i.life = -time.Minute
	_ = halts(t, cfg, "kafka_authentication", "OUTRIDER_KAFKA_SASL_OAUTH_")
	i.life = time.Hour

	// A provider that is away is an outage: the sink waits, and goes on.
	i.broken.Store(true)
	w = newWorld(t, cfg)
	begun := make(chan error, 1)
	go func() {
		_, err := w.sink.Begin(t.Context(), w.source())
		begun <- err
	}()
	if got := w.condition("kafka_unreachable", "", true); !strings.Contains(got.Hint, "503") {
		t.Errorf("hint %q", got.Hint)
	}
	i.broken.Store(false)
	if err := <-begun; err != nil {
		t.Errorf("%v: %s", err, relay.HintText(err))
	}
}
