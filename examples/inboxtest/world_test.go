package inboxtest_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// broker lets members that were killed be noticed within a second.
var broker = kafka.Shared{Options: kafka.Options{Properties: []string{"group.min.session.timeout.ms=500"}}}

func TestMain(m *testing.M) {
	if os.Getenv(memberVariable) != "" {
		os.Exit(member())
	}
	goleak.VerifyTestMain(broker.Closing(m))
}

// patience is generous: the machine may be busy.
const patience = 60 * time.Second

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// consumerDatabase makes a database that has an inbox and no outbox, and returns its URL.
func consumerDatabase(t *testing.T, s *postgres.Server) string {
	t.Helper()
	name := "consumer_" + strings.ToLower(rand.Text()[:12])
	must(t, connect(t, s.URL()), "CREATE DATABASE "+name)
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	url := s.DatabaseURL(name)
	must(t, connect(t, url), script)
	return url
}

func must(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%.200s: %v", sql, err)
	}
}

// get returns the one value of a query.
func get[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%.200s: %v", sql, err)
	}
	return v
}

// await polls until f returns nil.
func await(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", patience, err)
		}
		<-tick.C
	}
}

// eachMajor runs test on one server a major.
func eachMajor(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			test(t, consumerDatabase(t, postgres.Start(t, major)))
		})
	}
}
