package securitytest_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// planted marks every secret of the tests here.
const planted = "planted"

// tells fails the test if the text holds a secret, as it is or in the forms in
// which logs and addresses write it.
func tells(t *testing.T, what, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("%s is empty: nothing was looked at", what)
	}
	for _, form := range []string{planted, fmt.Sprintf("%x", planted), "cGxhbnRlZ", "BsYW50ZW", "wbGFudGVk"} { // hex; base64 at each offset
		if i := strings.Index(strings.ToLower(text), strings.ToLower(form)); i >= 0 {
			t.Errorf("%s tells a secret: …%s…", what, text[max(0, i-100):min(len(text), i+50)])
		}
	}
}

// look asks the running p for all it tells, crashes it, and looks at its log.
func look(t *testing.T, p *program) {
	t.Helper()
	for _, path := range []string{"/status", "/metrics", "/livez", "/readyz"} {
		tells(t, path, p.get(path))
	}
	p.kill(syscall.SIGQUIT) // Go prints all goroutines
	if !strings.Contains(p.stderr.String(), "goroutine ") {
		t.Error("no crash was printed")
	}
	tells(t, "log and crash", p.stderr.String())
}

// All that talks is switched on, logins succeed and fail, Postgres and Kafka go away.
func TestSecretsStaySecret(t *testing.T) {
	s := newSecured(t)
	const jaas = `listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_app="` + rightPassword + `";`
	b := newBrokers(t, "SASL_SSL", "sasl.enabled.mechanisms=PLAIN", jaas)
	password := put(t, []byte(rightPassword))
	environ := b.environ(s.url("password"), "OUTRIDER_LOG_LEVEL=DEBUG", "GOTRACEBACK=all", "OUTRIDER_SLOOT=planted", "OUTRIDER_KAFKA_PASSWORD=planted",
		"OUTRIDER_KAFKA_SASL_MECHANISM=plain", "OUTRIDER_KAFKA_SASL_USERNAME=app", "OUTRIDER_KAFKA_SASL_PASSWORD_FILE="+password)
	p := start(t, environ...)
	p.awaits("leader", "")
	var id string
	err := s.admin.QueryRow(t.Context(), `INSERT INTO outbox.events (topic, key, payload, headers) VALUES ($1, 'planted-key', '"planted-payload"', '{"h": "planted-header"}') RETURNING id::text`, b.topic).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	b.arrives(p, b.topic, id)
	if err := b.Kill(1); err != nil {
		t.Fatal(err)
	}
	s.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ($1, 'planted-key', '"planted-payload"')`, b.topic)
	s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'password'`)
	harness.Await(t, patience, func() error {
		if log := p.stderr.String(); !strings.Contains(log, "57P01") || !strings.Contains(log, "connection refused") {
			return fmt.Errorf("the faults are not in the log yet")
		}
		return nil
	})
	if err := b.StartNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.relays(p, s.SocketURL())
	look(t, p)

	if err := os.WriteFile(password, []byte("wrong-planted-password"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = start(t, environ...)
	p.awaits("halted", "kafka_authentication")
	look(t, p)
	wrong := strings.Replace(s.url("password"), rightPassword, "wrong-planted-password", 1)
	p = start(t, append(environ, "OUTRIDER_DATABASE_URL="+wrong)...)
	p.awaits("halted", "authentication")
	look(t, p)
	p = start(t, append(environ, "OUTRIDER_DATABASE_URL="+wrong, "OUTRIDER_NAME=", "PGPASSWORD=planted", "PGUSER=certified")...)
	p.awaits("halted", "authentication")
	look(t, p)
}

// Every variable that is a secret is planted, right and wrong, so that a new one
// is in the test by itself.
func TestConfigTellsNoSecret(t *testing.T) {
	var environ, broken []string
	secrets := 0
	for prefix, owner := range map[string]reflect.Type{"OUTRIDER_": reflect.TypeFor[relay.Config](), "OUTRIDER_KAFKA_": reflect.TypeFor[kafka.Config]()} {
		for f := range owner.Fields() {
			if f.Type == reflect.TypeFor[secret.Text]() {
				secrets++
				environ = append(environ, prefix+f.Tag.Get("env")+"=planted-secret")
				broken = append(broken, prefix+f.Tag.Get("env")+"_FILE=/nonexistent/file", prefix+f.Tag.Get("env")+"=planted-secret")
			}
		}
	}
	if secrets < 4 {
		t.Fatalf("%d secrets found", secrets)
	}
	url := "OUTRIDER_DATABASE_URL=postgres://app:planted-secret@127.0.0.1:1/shop"
	for name, vars := range map[string][]string{
		"right": append(environ, url, "OUTRIDER_KAFKA_BROKERS=b:9092"), "not a URL": append(environ, "OUTRIDER_KAFKA_BROKERS=b:9092"), "both": broken,
		"endpoint": append(environ, url, "OUTRIDER_KAFKA_BROKERS=b:9092", "OUTRIDER_KAFKA_SASL_MECHANISM=oauthbearer", "OUTRIDER_KAFKA_SASL_OAUTH_TOKEN=",
			"OUTRIDER_KAFKA_SASL_OAUTH_TOKEN_URL=https://app:planted-secret@idp/token"),
	} {
		for _, args := range [][]string{{"config"}, {"config", "--strict"}, {"config", "--acls"}, {"run"}, {"status"}, {"healthcheck"}, {"migrate", "status"}, {"migrate", "up"}, {"deadletter", "list"}} {
			out, told, _ := run(t, append(vars, "OUTRIDER_HTTP_ADDR=127.0.0.1:1"), args...)
			tells(t, name+" "+strings.Join(args, " "), out+told+" ")
		}
	}
}
