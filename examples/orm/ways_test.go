package orm

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/driver/pgdriver"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

func openSQL(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func openPool(t testing.TB, url string, mode pgx.QueryExecMode) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.DefaultQueryExecMode = mode
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openGorm(t testing.TB, url string, prepare bool) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(gormpostgres.Open(url), &gorm.Config{PrepareStmt: prepare, Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if inner, err := db.DB(); err == nil {
			_ = inner.Close()
		}
	})
	return db
}

func openRiver(t testing.TB, d *database, pool *pgxpool.Pool) *river.Client[pgx.Tx] {
	t.Helper()
	owner, err := pgxpool.New(t.Context(), d.owner.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(owner), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := migrator.Migrate(t.Context(), rivermigrate.DirectionUp, nil); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "GRANT ALL ON ALL TABLES IN SCHEMA public TO app_of_orm; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app_of_orm")
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

// TestBothOrNeither pays an order and writes a message with each library:
// committed, both are there; rolled back behind the message, neither is.
func TestBothOrNeither(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	pool := openPool(t, d.url, pgx.QueryExecModeCacheStatement)
	jobs := openRiver(t, d, pool)
	pq, stdlib := openSQL(t, "postgres", d.url), openSQL(t, "pgx", d.url)
	bunOf := func(db *sql.DB) *bun.DB { return bun.NewDB(db, pgdialect.New()) }
	pgdb := sql.OpenDB(pgdriver.NewConnector(pgdriver.WithDSN(d.url)))
	t.Cleanup(func() { _ = pgdb.Close() })
	for name, pay := range map[string]func(ctx context.Context, order int64) error{
		"lib/pq":            func(ctx context.Context, o int64) error { return paySQL(ctx, pq, o) },
		"pgx stdlib":        func(ctx context.Context, o int64) error { return paySQL(ctx, stdlib, o) },
		"pgdriver":          func(ctx context.Context, o int64) error { return paySQL(ctx, pgdb, o) },
		"pgx":               func(ctx context.Context, o int64) error { return payPgx(ctx, pool, o) },
		"sqlx with lib/pq":  func(ctx context.Context, o int64) error { return paySqlx(ctx, sqlx.NewDb(pq, "postgres"), o) },
		"gorm":              func(ctx context.Context, o int64) error { return payGorm(ctx, openGorm(t, d.url, false), o) },
		"gorm, prepared":    func(ctx context.Context, o int64) error { return payGorm(ctx, openGorm(t, d.url, true), o) },
		"bun with pgdriver": func(ctx context.Context, o int64) error { return payBun(ctx, bunOf(pgdb), o) },
		"bun with pgx":      func(ctx context.Context, o int64) error { return payBun(ctx, bunOf(stdlib), o) },
		"ent": func(ctx context.Context, o int64) error {
			return payEnt(ctx, entsql.OpenDB(dialect.Postgres, stdlib), o)
		},
		"sqlc":             func(ctx context.Context, o int64) error { return paySqlc(ctx, pool, New(pool), o) },
		"River":            func(ctx context.Context, o int64) error { return payRiver(ctx, pool, jobs, o) },
		"sql.Conn, lib/pq": func(ctx context.Context, o int64) error { return payConn(ctx, pq, o) },
		"sql.Conn, pgx":    func(ctx context.Context, o int64) error { return payConn(ctx, stdlib, o) },
	} {
		t.Run(name, func(t *testing.T) {
			d.exec(t, "TRUNCATE outbox.events; UPDATE orders SET state = 'new'; TRUNCATE river_job")
			// What fails is the update, behind the message.
			if err := pay(t.Context(), 13); err == nil || !strings.Contains(err.Error(), "orders_check") {
				t.Fatalf("order 13 was paid, or something else failed: %v", err)
			}
			if rows := d.rows(t); len(rows) != 0 || d.state(t, 13) != "new" {
				t.Errorf("rolled back, but order 13 is %s and there are %d messages", d.state(t, 13), len(rows))
			}
			if err := pay(t.Context(), 42); err != nil {
				t.Fatal(err)
			}
			rows := d.rows(t)
			if len(rows) != 1 || d.state(t, 42) != "paid" {
				t.Fatalf("committed, but order 42 is %s and there are %d messages", d.state(t, 42), len(rows))
			}
			got := rows[0]
			if got.Topic != "orders" || *got.Key != "42" || *got.Type != "OrderPaid" || *got.JSON != `{"order":42,"total":"9.90"}` || got.Header != nil || got.Bytes != nil {
				t.Errorf("message is %+v", got)
			}
			if name == "River" {
				var jobs int
				if err := d.owner.QueryRow(t.Context(), "SELECT count(*) FROM river_job").Scan(&jobs); err != nil || jobs != 1 {
					t.Errorf("%d jobs, %v", jobs, err)
				}
			}
		})
	}
}
