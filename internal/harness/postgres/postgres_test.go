package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds what a test waits for.
const limit = 30 * time.Second

// query returns the one text value of sql.
func query(t testing.TB, url, sql string) string {
	t.Helper()
	value, err := tryQuery(t, url, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func tryQuery(t testing.TB, url, sql string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close(ctx) }()
	rows, err := c.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var value string
	for rows.Next() {
		value = string(rows.RawValues()[0])
	}
	return value, rows.Err()
}

// eventually waits until sql returns want.
func eventually(t testing.TB, url, sql, want string) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got := query(t, url, sql)
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %q, want %q", sql, got, want)
		}
	}
}

func TestEveryMajorStarts(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s := postgres.Start(t, major)
			t.Logf("ready after %v", time.Since(began))
			for _, u := range []string{s.URL(), s.SocketURL(), s.DatabaseURL("template1")} {
				if got := query(t, u, "SELECT current_setting('server_version_num')::int / 10000"); got != strconv.Itoa(major) {
					t.Errorf("%s is of major %s, want %d", u, got, major)
				}
			}
			s.Private(t)
			if err := s.Set("cluster_name=it's mine"); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := query(t, s.URL(), "SELECT current_setting('cluster_name') || ' ' || current_setting('wal_level')"); got != "it's mine logical" {
				t.Errorf("settings are %q", got)
			}
		})
	}
}

func TestCrashKeepsWhatWasCommitted(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			s := postgres.Start(t, major)
			s.Private(t)
			query(t, s.URL(), "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
			open, err := pgx.Connect(t.Context(), s.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = open.Close(context.Background()) }()
			if _, err := open.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (0)"); err != nil {
				t.Fatal(err)
			}
			pid := s.Pid()
			began := time.Now()
			if err := s.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			crashed := time.Since(began)
			if s.Pid() != 0 {
				t.Error("the server runs after a crash")
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the postmaster is still there: %v", err)
			}
			began = time.Now()
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("crash %v, start %v", crashed, time.Since(began))
			if got := query(t, s.URL(), "SELECT count(*)::text || ' ' || min(n) FROM t"); got != "1000 1" {
				t.Errorf("after the crash: %s rows and smallest number, want 1000 1", got)
			}
			if !strings.Contains(s.Log(), "was not properly shut down") {
				t.Error("the server did not recover, so it did not crash")
			}
		})
	}
}

func TestStandbyIsPromoted(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			s := postgres.Start(t, major)
			s.Private(t)
			query(t, s.URL(), "CREATE TABLE t AS SELECT 1 AS n")
			began := time.Now()
			standby := s.StartStandby(t, "b")
			t.Logf("standby after %v", time.Since(began))
			query(t, s.URL(), "INSERT INTO t VALUES (2)")
			eventually(t, standby.URL(), "SELECT sum(n) FROM t", "3")
			if got := query(t, s.URL(), "SELECT application_name FROM pg_stat_replication"); got != "b" {
				t.Errorf("the primary knows %q", got)
			}
			if _, err := tryQuery(t, standby.URL(), "INSERT INTO t VALUES (3)"); err == nil {
				t.Error("a standby took a write")
			}
			if err := s.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("promoted after %v", time.Since(began))
			query(t, standby.URL(), "INSERT INTO t VALUES (4)")
			if got := query(t, standby.URL(), "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"); got != "00000002" {
				t.Errorf("the promoted server is on timeline %s", got)
			}
		})
	}
}

func TestStops(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			s := postgres.Start(t, major)
			s.Private(t)
			query(t, s.URL(), "CREATE TABLE t AS SELECT 1 AS n")
			for _, mode := range []postgres.Mode{postgres.Fast, postgres.Immediate, postgres.Smart} {
				began := time.Now()
				if err := s.Stop(t.Context(), mode); err != nil {
					t.Fatal(err)
				}
				t.Logf("%v stop %v", mode, time.Since(began))
				if err := s.Stop(t.Context(), mode); err != nil {
					t.Errorf("stop of a stopped server: %v", err)
				}
				if err := s.Set("max_connections=2" + strconv.Itoa(int(mode)%10)); err != nil {
					t.Fatal(err)
				}
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := query(t, s.URL(), "SELECT n FROM t"); got != "1" {
					t.Errorf("after a %v stop: %s", mode, got)
				}
				if got := query(t, s.URL(), "SHOW max_connections"); got != "2"+strconv.Itoa(int(mode)%10) {
					t.Errorf("the setting is %s", got)
				}
			}
		})
	}
}

// A stop that has to wait says so at the deadline, and comes true later.
func TestStopThatWaits(t *testing.T) {
	s := postgres.Start(t, 0)
	s.Private(t)
	c, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx, postgres.Smart); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("smart stop with a client: %v", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), postgres.Smart); err != nil {
		t.Error(err)
	}
}

func TestStartErrorShowsLog(t *testing.T) {
	s := postgres.Start(t, 0)
	s.Private(t)
	if err := s.Set("max_wal_senders=many"); err != nil {
		t.Fatal(err)
	}
	err := s.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "max_wal_senders"`) {
		t.Errorf("error is %v", err)
	}
}

func TestReload(t *testing.T) {
	s := postgres.Start(t, 0)
	s.Private(t)
	if err := s.Set("wal_sender_timeout=7s"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, s.URL(), "SHOW wal_sender_timeout", "7s")
}

func TestScramAndTLS(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			s := postgres.StartWith(t, postgres.Options{Major: major, Auth: postgres.AuthScram, TLS: true})
			const cipher = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
			if got := query(t, s.URL(), cipher); got != "TLSv1.3" {
				t.Errorf("the connection has %q", got)
			}
			if got := query(t, s.URL()+"&replication=database", "SHOW ssl"); got != "on" {
				t.Errorf("replication connection: ssl is %q", got)
			}
			wrong, err := url.Parse(s.URL())
			if err != nil {
				t.Fatal(err)
			}
			wrong.User = url.UserPassword("postgres", "wrong")
			if _, err := tryQuery(t, wrong.String(), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "28P01") {
				t.Errorf("a wrong password: %v", err)
			}
			plain, _, _ := strings.Cut(s.URL(), "?")
			if _, err := tryQuery(t, plain+"?sslmode=disable", "SELECT 1"); err == nil {
				t.Error("let in without TLS")
			}
			if _, err := os.Stat(s.CAFile()); err != nil {
				t.Error(err)
			}
		})
	}
}
