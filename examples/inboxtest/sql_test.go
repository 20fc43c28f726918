package inboxtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/inbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

var billing = inbox.Consumer{Name: "billing"}

// record is one with these headers, name=value.
func record(partition int32, key string, headers ...string) inbox.Record {
	r := inbox.Record{Topic: "orders", Partition: partition, Header: func(name string) ([]byte, bool) {
		for _, h := range headers {
			if k, v, _ := strings.Cut(h, "="); k == name {
				return []byte(v), true
			}
		}
		return nil, false
	}}
	if key != "" {
		r.Key = []byte(key)
	}
	return r
}

// placed is a record of the relay.
func placed(partition int32, id, source string, position int, committed time.Time) inbox.Record {
	return record(partition, "k", "id="+id, "outrider-source="+source, fmt.Sprintf("outrider-position=%016X.%016X", position, 0),
		"outrider-committed-at="+committed.UTC().Format("2006-01-02T15:04:05.000000Z07:00"))
}

// v7 is the n-th UUID of version 7 made at that time.
func v7(at time.Time, n int) string {
	hex := fmt.Sprintf("%012x", at.UnixMilli())
	return fmt.Sprintf("%s-%s-7000-8000-%012x", hex[:8], hex[8:], n)
}

type taker func(ctx context.Context, tx pgx.Tx, records ...inbox.Record) ([]bool, error)

// takers are the two ways.
func takers() map[string]taker {
	return map[string]taker{
		"once": func(ctx context.Context, tx pgx.Tx, records ...inbox.Record) (first []bool, err error) {
			for _, r := range records {
				ok, err := inbox.OncePgx(ctx, tx, billing, r)
				if err != nil {
					return nil, err
				}
				first = append(first, ok)
			}
			return first, nil
		},
		"newer": func(ctx context.Context, tx pgx.Tx, records ...inbox.Record) ([]bool, error) {
			return inbox.NewerPgx(ctx, tx, billing, records...)
		},
	}
}

func begin(t *testing.T, url string, o pgx.TxOptions) pgx.Tx {
	t.Helper()
	tx, err := connect(t, url).BeginTx(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func wantTaken(t *testing.T, take taker, tx pgx.Tx, want string, records ...inbox.Record) {
	t.Helper()
	first, err := take(t.Context(), tx, records...)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(first); got != "["+want+"]" {
		t.Errorf("got %s, want [%s]", got, want)
	}
}

func TestFirstTimeOnlyAndRollbackForgets(t *testing.T) {
	eachMajor(t, func(t *testing.T, url string) {
		for name, take := range takers() {
			now := time.Now()
			a, b, c := placed(0, v7(now, len(name)), name, 1, now), placed(0, v7(now, 10+len(name)), name, 2, now), placed(0, "text "+name, name, 3, now)
			tx := begin(t, url, pgx.TxOptions{})
			wantTaken(t, take, tx, "true false true", a, a, c)
			inner, err := tx.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantTaken(t, take, inner, "true", b)
			if err := inner.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantTaken(t, take, tx, "true false", b, c)
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			tx = begin(t, url, pgx.TxOptions{})
			wantTaken(t, take, tx, "true true true", a, b, c)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantTaken(t, take, begin(t, url, pgx.TxOptions{}), "false false false", c, b, a)
		}
	})
}

// Whoever takes an event that another transaction is about to take waits, and
// then has what that one left: nothing after a commit, the event after a rollback.
func TestConcurrentDuplicatesWait(t *testing.T) {
	eachMajor(t, func(t *testing.T, url string) {
		for name, take := range takers() {
			for i, commit := range []bool{true, false} {
				now := time.Now()
				r := placed(int32(i), v7(now, 100*i+len(name)), name, 1, now)
				holder, waiter := begin(t, url, pgx.TxOptions{}), begin(t, url, pgx.TxOptions{})
				wantTaken(t, take, holder, "true", r)
				var first []bool
				var err error
				var waiting sync.WaitGroup
				waiting.Go(func() { first, err = take(t.Context(), waiter, r) })
				watch, pid := connect(t, url), waiter.Conn().PgConn().PID()
				await(t, func() error {
					if !get[bool](t, watch, `SELECT cardinality(pg_blocking_pids($1::int)) > 0`, pid) {
						return errors.New("nobody waits")
					}
					return nil
				})
				end := holder.Rollback
				if commit {
					end = holder.Commit
				}
				if err := end(t.Context()); err != nil {
					t.Fatal(err)
				}
				waiting.Wait()
				if err != nil || len(first) != 1 || first[0] == commit {
					t.Errorf("%s, the first one commits: %v: the second one gets %v, %v", name, commit, first, err)
				}
			}
		}
	})
}

// A dead letter and its event, which was retried, are in the hands of two members
// at once, on different topics: the second one waits, whichever it is.
func TestDeadLetterAndItsRetryAtOnce(t *testing.T) {
	url := consumerDatabase(t, postgres.Start(t, 0))
	take, watch := takers()["newer"], connect(t, url)
	for i := range 2 {
		now := time.Now()
		retried := placed(1, v7(now, i), "s", i+1, now)
		letter := record(0, "k", "id="+v7(now, i), "outrider-source=s", "outrider-position=0000000000000001.0000000000000000", "outrider-dead-topic=orders")
		letter.Topic = "dead"
		pair := []inbox.Record{letter, retried}
		holder, waiter := begin(t, url, pgx.TxOptions{}), begin(t, url, pgx.TxOptions{})
		wantTaken(t, take, holder, "true", pair[i])
		var first []bool
		var err error
		var waiting sync.WaitGroup
		waiting.Go(func() { first, err = take(t.Context(), waiter, pair[1-i]) })
		pid := waiter.Conn().PgConn().PID()
		await(t, func() error {
			if !get[bool](t, watch, `SELECT cardinality(pg_blocking_pids($1::int)) > 0`, pid) {
				return errors.New("nobody waits")
			}
			return nil
		})
		if err := holder.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
		if err != nil || fmt.Sprint(first) != "[false]" {
			t.Errorf("the second one gets %v, %v", first, err)
		}
		if err := waiter.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A transaction whose snapshot is older than the other's commit cannot know: it
// fails, to be tried again, or is not taken at all.
func TestOldSnapshotIsRefused(t *testing.T) {
	url := consumerDatabase(t, postgres.Start(t, 0))
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		for name, take := range takers() {
			now := time.Now()
			r := placed(0, v7(now, len(level)), name+string(level), 1, now)
			old, other := begin(t, url, pgx.TxOptions{IsoLevel: level}), begin(t, url, pgx.TxOptions{})
			if _, err := old.Exec(t.Context(), "SELECT 1 FROM outbox.inbox"); err != nil {
				t.Fatal(err)
			}
			wantTaken(t, take, other, "true", r)
			if err := other.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			first, err := take(t.Context(), old, r)
			want := map[string]string{"once": "40001", "newer": "25000"}[name]
			if state := interface{ SQLState() string }(nil); !errors.As(err, &state) || state.SQLState() != want {
				t.Errorf("%s at %s: %v, %v; want %s", name, level, first, err, want)
			}
		}
	}
}

func TestPurgeInBatches(t *testing.T) {
	url := consumerDatabase(t, postgres.Start(t, 0))
	conn, now := connect(t, url), time.Now()
	take := takers()["newer"]
	tx := begin(t, url, pgx.TxOptions{})
	var records []inbox.Record
	for i := range 2500 {
		records = append(records, placed(0, v7(now, i), "s", i+1, now), record(0, "", fmt.Sprint("id=keyless ", i)))
	}
	if _, err := take(t.Context(), tx, records...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := get[int](t, conn, "SELECT count(*)::int FROM outbox.inbox_chunks"); n < 2500/64 || n > 2500/64+3 {
		t.Errorf("%d chunks for 2500 ids", n)
	}
	must(t, conn, "INSERT INTO outbox.inbox (consumer, id, received_at) VALUES ('another', gen_random_uuid(), now() - interval '1 year')")
	if n := get[int](t, conn, "SELECT outbox.inbox_purge('billing', '1 hour')::int"); n != 0 {
		t.Errorf("%d rows of now were removed", n)
	}
	if n := get[int](t, conn, "SELECT outbox.inbox_purge('billing', '0', 1000)::int"); n != 1000+2500/64+1 {
		t.Errorf("the first batch has %d rows", n)
	}
	if n, err := inbox.PurgePgx(t.Context(), conn, billing, 0); err != nil || n != 1500 {
		t.Errorf("%d rows, %v", n, err)
	}
	if n := get[int](t, conn, "SELECT count(*)::int FROM outbox.inbox"); n != 1 {
		t.Errorf("%d rows of another consumer are left, want 1", n)
	}
	// Ids are forgotten, the position is not: an old record that comes again under its source is dropped.
	old := now.Add(-48 * time.Hour)
	must(t, conn, "UPDATE outbox.inbox_purges SET forgotten_before = now() - interval '1 day'")
	wantTaken(t, take, begin(t, url, pgx.TxOptions{}), "false true", placed(0, v7(old, 1), "s", 7, old), placed(0, v7(old, 2), "other", 7, old))
}

func TestRolesAndOtherSchema(t *testing.T) {
	server := postgres.Start(t, 0)
	conn := connect(t, server.URL())
	must(t, conn, "CREATE ROLE eater; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
	for range 2 {
		script, err := migrations.Script(migrations.Names{Schema: "mine"}, []migrations.Role{{Privilege: migrations.ConsumerRole, Name: "eater"}}, migrations.Inbox)
		if err != nil {
			t.Fatal(err)
		}
		must(t, conn, script)
	}
	if tables := get[string](t, conn, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'mine'::regnamespace"); tables !=
		"inbox inbox_chunks inbox_positions inbox_purges schema_version settings" {
		t.Errorf("tables: %s", tables)
	}
	must(t, conn, "SET ROLE eater")
	mine, now := inbox.Consumer{Name: "c", Schema: "mine"}, time.Now()
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		ok, err := inbox.OncePgx(t.Context(), tx, mine, record(0, "", "id=x"))
		if err != nil || !ok {
			return fmt.Errorf("once: %v, %w", ok, err)
		}
		var many []inbox.Record
		for i := range 100 {
			many = append(many, placed(0, v7(now, i), "s", i+1, now))
		}
		_, err = inbox.NewerPgx(t.Context(), tx, mine, many...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := inbox.PurgePgx(t.Context(), conn, mine, 0); err != nil || n < 2 {
		t.Errorf("purged %d, %v", n, err)
	}
	for _, refused := range []string{
		"TRUNCATE mine.inbox", "UPDATE mine.inbox SET id = gen_random_uuid()", "DELETE FROM mine.inbox_positions", "DELETE FROM mine.inbox_purges",
		"DROP TABLE mine.inbox", "UPDATE mine.settings SET value = 'x'", "UPDATE mine.inbox_chunks SET ids = '{}'",
	} {
		if _, err := conn.Exec(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", refused, err)
		}
	}
}

func TestWrongCallsNameWhatIsWrong(t *testing.T) {
	server := postgres.Start(t, 0)
	url := consumerDatabase(t, server)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn := connect(t, url)
	ctx, good := t.Context(), record(0, "k", "id=1")
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if ok, err := inbox.Once(ctx, tx, billing, good); !ok || err != nil {
		t.Errorf("database/sql: %v, %v", ok, err)
	}
	if first, err := inbox.Newer(ctx, tx, billing, good, record(1, "k", "id=2"), record(0, "k", "id=3")); err != nil || fmt.Sprint(first) != "[false true true]" {
		t.Errorf("database/sql: %v, %v", first, err)
	}
	_, a := inbox.Once(ctx, db, billing, good)
	_, b := inbox.OncePgx(ctx, conn, billing, good)
	_, c := inbox.Newer(ctx, db, billing, good)
	for _, err := range []error{a, b, c} {
		if !errors.Is(err, inbox.ErrNoTransaction) {
			t.Errorf("outside of a transaction: %v", err)
		}
	}
	for _, r := range []inbox.Record{
		record(0, "k"), {}, record(0, "k", "id="), record(0, "k", "id=1", "outrider-position=12"), record(0, "k", "id=1", "outrider-committed-at=yesterday"),
	} {
		_, err := inbox.Newer(ctx, tx, billing, r)
		wrong := &inbox.HeaderError{}
		if !errors.Is(err, inbox.ErrNotOutrider) || !errors.As(err, &wrong) || wrong.Header == "" {
			t.Errorf("%s: %v", r, err)
		}
	}
	if _, err := inbox.Once(ctx, tx, inbox.Consumer{Name: "x", Schema: `no"where`}, good); !errors.Is(err, inbox.ErrNoInbox) {
		t.Errorf("without an inbox: %v", err)
	}
	for _, bad := range []string{
		`SELECT outbox.inbox_once('', 'x')`, `SELECT outbox.inbox_once(NULL, 'x')`, `SELECT outbox.inbox_once('c', NULL)`,
		`SELECT outbox.inbox_newer('c', 't', 0, '[{"ordered": true}]')`, `SELECT outbox.inbox_newer('c', 't', 0, '[{"id": "1", "position": "7"}]')`,
		`SELECT outbox.inbox_purge('c', '-1 day')`, `SELECT outbox.inbox_purge('c', '1 day', 0)`,
	} {
		if _, err := conn.Exec(ctx, bad); err == nil {
			t.Errorf("%s worked", bad)
		}
	}
}
