package securitytest_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/migrate"
)

// secured is a Postgres that lets in, over TLS only, roles with a password, with
// a certificate, and with both.
type secured struct {
	*postgres.Server
	t     *testing.T
	admin *pgx.Conn
	ca    *authority
}

const rightPassword = "right-planted-password"

func newSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{t: t, ca: newAuthority(t, "authority of the database")}
	s.Server = postgres.StartWith(t, postgres.Options{TLS: true, Auth: postgres.AuthScram, HBA: []string{
		"local all all trust", "local replication all trust",
		"hostssl all password 127.0.0.1/32 scram-sha-256",
		"hostssl all certified 127.0.0.1/32 cert",
		"hostnossl all open 127.0.0.1/32 scram-sha-256", // to show what the relay does not do
		"hostssl all both 127.0.0.1/32 scram-sha-256 clientcert=verify-full",
	}})
	s.Private(t)
	s.certify(s.ca)
	s.admin = postgres.Connect(t, s.SocketURL())
	if _, err := migrate.Up(t.Context(), s.admin, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"password", "certified", "both", "open"} {
		s.exec(`CREATE ROLE "` + role + `" PASSWORD '` + rightPassword + "'")
		sql, errors, err := run(t, []string{"OUTRIDER_DATABASE_URL=" + s.url(role), "OUTRIDER_SINK=stdout"}, "config", "--acls=sql")
		if err != nil {
			t.Fatal(err, errors)
		}
		if err := s.admin.PgConn().Exec(t.Context(), sql).Close(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// certify gives the server a certificate of a for 127.0.0.1 and no other name.
func (s *secured) certify(a *authority) {
	s.t.Helper()
	p := a.issue("database")
	root, err := os.ReadFile(a.file)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"server.crt": p.cert, "server.key": p.key, "root.crt": root} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name), content, 0o644); err != nil { // the mode of files that are there stays
			s.t.Fatal(err)
		}
	}
	if err := s.Set("ssl_ca_file=root.crt"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		s.t.Fatal(err)
	}
	// The server reads its certificates some time after the signal.
	harness.Await(s.t, patience, func() error {
		c, err := pgx.Connect(s.t.Context(), fmt.Sprintf("postgres://nobody@127.0.0.1:%d/postgres?sslmode=verify-full&sslrootcert=%s", s.Port(), url.QueryEscape(a.file)))
		if err == nil {
			return c.Close(s.t.Context())
		}
		if strings.Contains(err.Error(), "28000") {
			return nil
		}
		return err
	})
}

func (s *secured) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.admin.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// url is how role connects; settings are name, value.
func (s *secured) url(role string, settings ...string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, rightPassword), Host: fmt.Sprintf("127.0.0.1:%d", s.Port()), Path: "/postgres"}
	q := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.ca.file}}
	for i := 0; i < len(settings); i += 2 {
		q.Set(settings[i], settings[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// toStdout is the configuration of a relay that needs no Kafka.
func toStdout(url string) []string {
	return []string{"OUTRIDER_DATABASE_URL=" + url, "OUTRIDER_SINK=stdout"}
}

// relays expects a row to come out of p.
func (s *secured) relays(p *program) {
	s.t.Helper()
	var id string
	if err := s.admin.QueryRow(s.t.Context(), `INSERT INTO outbox.events (topic, key, payload) VALUES ('a', 'k', '1') RETURNING id::text`).Scan(&id); err != nil {
		s.t.Fatal(err)
	}
	harness.Await(s.t, patience, func() error {
		if !strings.Contains(p.stdout.String(), id) {
			return fmt.Errorf("row %s does not come: %s", id, p.get("/status"))
		}
		return nil
	})
}

func TestPostgres(t *testing.T) {
	s := newSecured(t)
	cert, key := s.ca.issue("certified").files(t)
	both, bothKey := s.ca.issue("both").files(t)
	for name, url := range map[string]string{
		"password, bound to the channel": s.url("password", "channel_binding", "require", "require_auth", "scram-sha-256"),
		"certificate":                    s.url("certified", "sslcert", cert, "sslkey", key),
		"password and certificate":       s.url("both", "sslcert", both, "sslkey", bothKey, "channel_binding", "require"),
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, toStdout(url)...)
			p.awaits("leader", "")
			s.relays(p)
			over := 0
			if err := s.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl`).Scan(&over); err != nil || over != 1 {
				t.Errorf("%d replication connections use TLS: %v", over, err)
			}
			p.kill(15)
		})
	}
}

func TestPostgresRefuses(t *testing.T) {
	s := newSecured(t)
	stranger := newAuthority(t, "stranger")
	other, otherKey := s.ca.issue("somebody").files(t)
	forged, forgedKey := stranger.issue("certified").files(t)
	late, lateKey := s.ca.issue("certified", over).files(t)
	wrong := strings.Replace(s.url("password"), rightPassword, "wrong-planted-password", 1)
	for name, c := range map[string]struct{ url, reason, why string }{
		"another authority":          {s.url("password", "sslrootcert", stranger.file), "tls", "unknown authority"},
		"another name":               {strings.Replace(s.url("password"), "127.0.0.1", "localhost", 1), "tls", "localhost"},
		"wrong password":             {wrong, "authentication", "28P01"},
		"no TLS":                     {s.url("password", "sslmode", "disable", "sslrootcert", ""), "authentication", "28000"},
		"channel bound without TLS":  {s.url("open", "sslmode", "disable", "sslrootcert", "", "channel_binding", "require"), "reconnecting", "channel binding"},
		"no certificate":             {s.url("certified"), "authentication", "28000"},
		"password, no certificate":   {s.url("both"), "authentication", "28000"},
		"certificate of another":     {s.url("certified", "sslcert", other, "sslkey", otherKey), "authentication", "28000"},
		"certificate by a stranger":  {s.url("certified", "sslcert", forged, "sslkey", forgedKey), "authentication", "28000"},
		"certificate that is over":   {s.url("certified", "sslcert", late, "sslkey", lateKey), "tls", "certificate"},
		"another method than wanted": {s.url("password", "require_auth", "none"), "reconnecting", "require_auth"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, toStdout(c.url), c.reason, c.why) })
	}
}

// A rotated password, certificate and authority count at the next connect.
func TestPostgresRotation(t *testing.T) {
	s := newSecured(t)
	cert, key := s.ca.issue("both").files(t)
	root := put(t, read(t, s.ca.file))
	address := put(t, []byte(s.url("both", "sslrootcert", root, "sslcert", cert, "sslkey", key)))
	p := start(t, "OUTRIDER_DATABASE_URL_FILE="+address, "OUTRIDER_SINK=stdout")
	p.awaits("leader", "")
	s.relays(p)

	next := newAuthority(t, "next authority")
	s.certify(next)
	s.exec(`ALTER ROLE "both" PASSWORD 'rotated-planted-password'`)
	s.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'both'`)
	if told := p.awaits("halted", "tls"); !strings.Contains(told.Hint, "sslrootcert=<path>") { // and goes on by itself:
		t.Errorf("hint %q", told.Hint)
	}
	rotated := next.issue("both")
	for path, content := range map[string][]byte{
		root: read(t, next.file), cert: rotated.cert, key: rotated.key,
		address: []byte(strings.Replace(s.url("both", "sslrootcert", root, "sslcert", cert, "sslkey", key), rightPassword, "rotated-planted-password", 1)),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.relays(p)
	p.awaits("leader", "")
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
