package orm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// requireRefusedWithoutTransaction hands in everything that looks like a
// transaction and is none. Nothing may be written, not even at once.
func requireRefusedWithoutTransaction(t *testing.T, d *database) {
	t.Helper()
	before := len(d.rows(t))
	ctx := t.Context()
	pool := openPool(t, d.url, pgx.QueryExecModeCacheStatement)
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Release()
	simple, err := openPool(t, d.url, pgx.QueryExecModeSimpleProtocol).Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer simple.Release()
	executors := map[string]outbox.Executor{
		"pgxpool.Pool": outbox.Pgx(pool), "pgxpool.Conn": outbox.Pgx(pooled), "pgx.Conn": outbox.Pgx(pooled.Conn()), "pgx.Conn, simple": outbox.Pgx(simple.Conn()),
		"gorm": openGorm(t, d.url, false).Statement.ConnPool, "gorm, prepared": openGorm(t, d.url, true).Statement.ConnPool,
	}
	for _, driver := range []string{"postgres", "pgx"} {
		db := openSQL(t, driver, d.url)
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ended, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ended.Commit(); err != nil {
			t.Fatal(err)
		}
		executors[driver+": sql.DB"], executors[driver+": sql.Conn"], executors[driver+": wrapper"] = db, conn, wrapper{db}
		executors[driver+": sqlx.DB"], executors[driver+": bun.DB"] = sqlx.NewDb(db, driver), bun.NewDB(db, pgdialect.New())
		executors[driver+": committed"] = ended
	}
	for name, tx := range executors {
		_, err := outbox.Write(ctx, tx, outbox.Message{Topic: "t"})
		if err == nil || !errors.Is(err, outbox.ErrNoTransaction) && !strings.HasSuffix(name, "committed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := len(d.rows(t)); after != before {
		t.Errorf("%d messages were written without a transaction", after-before)
	}
}

// wrapper hides what it wraps, as a logging DBTX does.
type wrapper struct{ outbox.Executor }

func TestTransactionThatDoesNotShow(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	conn, err := pgx.Connect(t.Context(), d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	run := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run("BEGIN")
	if _, err := outbox.WritePgx(t.Context(), conn, outbox.Message{Topic: "t"}); err != nil {
		t.Error(err)
	}
	run("COMMIT")
	db := openSQL(t, "pgx", d.url)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := outbox.Write(t.Context(), wrapper{tx}, outbox.Message{Topic: "t"}); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	w := outbox.Writer{AllowAutocommit: true}
	if _, err := w.Write(t.Context(), db, outbox.Message{Topic: "t"}, outbox.Message{Topic: "t"}); err != nil {
		t.Error(err)
	}
	if rows := d.rows(t); len(rows) != 4 {
		t.Errorf("%d messages, want 4", len(rows))
	}
}

func TestBunTxSaysWhatToHandIn(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	db := bun.NewDB(openSQL(t, "pgx", d.url), pgdialect.New())
	err := db.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		_, err := outbox.Write(ctx, tx, outbox.Message{Topic: "t"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "with bun tx.Tx") {
		t.Error(err)
	}
}

// inTx runs write in a transaction of each driver, which is rolled back.
func inTx(t *testing.T, d *database, write func(name string, tx outbox.Executor)) {
	t.Helper()
	for name, begin := range drivers(t, d) {
		t.Run(name, func(t *testing.T) {
			tx, rollback := begin(t)
			write(name, tx)
			_ = rollback() // after an error a commit is a rollback, which drivers report
		})
	}
}

func TestAnswersOfTheServer(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	id, err := outbox.NewID()
	if err != nil {
		t.Fatal(err)
	}
	d.exec(t, fmt.Sprintf("INSERT INTO outbox.events (id, topic) VALUES ('%s', 't'); CREATE ROLE nobody; GRANT nobody TO app_of_orm", id))
	large := outbox.Message{Topic: "t", Payload: make([]byte, outbox.DefaultMaxBytes+1)}
	for name, c := range map[string]struct {
		before string
		writer outbox.Writer
		msgs   []outbox.Message
		want   error
		index  int // -2: no *outbox.Error
	}{
		"id is there":           {msgs: []outbox.Message{{Topic: "t"}, {Topic: "t", ID: id}, {Topic: "t"}}, want: outbox.ErrDuplicateID, index: 1},
		"too large":             {writer: outbox.Writer{MaxBytes: 1e9}, msgs: []outbox.Message{large}, want: outbox.ErrRefused, index: 0},
		"one of two too large":  {writer: outbox.Writer{MaxBytes: 1e9}, msgs: []outbox.Message{{Topic: "t"}, large}, want: outbox.ErrRefused, index: -1},
		"setting is no JSON":    {before: "SET LOCAL outbox.headers = '{'", msgs: []outbox.Message{{Topic: "t"}}, want: outbox.ErrRefused, index: 0},
		"reserved in a setting": {before: `SET LOCAL outbox.headers = '{"id": "1"}'`, msgs: []outbox.Message{{Topic: "t"}}, want: outbox.ErrRefused, index: 0},
		"no schema":             {writer: outbox.Writer{Schema: "other"}, msgs: []outbox.Message{{Topic: "t"}}, want: outbox.ErrNoTable, index: -2},
		"no table":              {writer: outbox.Writer{Table: "other"}, msgs: []outbox.Message{{Topic: "t"}}, want: outbox.ErrNoTable, index: -2},
		"no privilege":          {before: "SET LOCAL ROLE nobody", msgs: []outbox.Message{{Topic: "t"}}, want: outbox.ErrPermission, index: -2},
	} {
		t.Run(name, func(t *testing.T) {
			inTx(t, d, func(driver string, tx outbox.Executor) {
				if c.before != "" {
					if _, err := tx.ExecContext(t.Context(), c.before); err != nil {
						t.Fatal(err)
					}
				}
				_, err := c.writer.Write(t.Context(), tx, c.msgs...)
				index := -2
				if refused, ok := errors.AsType[*outbox.Error](err); ok {
					index = refused.Index
				}
				if !errors.Is(err, c.want) || index != c.index {
					t.Errorf("%s: %v, want message %d and %v", driver, err, c.index, c.want)
				}
				_, ofPgx := errors.AsType[*pgconn.PgError](err)
				_, ofPq := errors.AsType[*pq.Error](err)
				if !ofPgx && !ofPq && driver != "pgdriver" {
					t.Errorf("%s: the driver's error is lost: %v", driver, err)
				}
			})
		})
	}
	if rows := d.rows(t); len(rows) != 1 {
		t.Errorf("%d messages, want the first alone", len(rows))
	}
}

// TestSameRulesAsTheTable: what is refused before the round trip the table
// refuses as well, and the other way round.
func TestSameRulesAsTheTable(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	insert := func(column, value string) error {
		topic := "t"
		if column == "topic" {
			topic = value
		}
		headers := "{}"
		if column == "headers" {
			text, err := json.Marshal(map[string]string{value: "x"})
			if err != nil {
				t.Fatal(err)
			}
			headers = string(text)
		}
		payload := "1"
		if column == "payload" {
			payload = value
		}
		_, err := d.owner.Exec(t.Context(), "INSERT INTO outbox.events (topic, headers, payload) VALUES ($1, $2::text::jsonb, $3::text::json)", topic, headers, payload)
		return err
	}
	texts := append(awkward(), "t", ".", "..", "...", "a.b_c-D9", "a b", "a\n", "\na", "ä", "é", "İ", strings.Repeat("a", 249), strings.Repeat("a", 250),
		"id", "ID", "id ", "id\n", "\nid", "type", "types", "xtype", "outrider", "outrider-", "outrider-x", "Outrider-x", "x\noutrider-", "\x00", "\xff",
		"1", "01", "-", "-0", "1e400", "NaN", "{", `{"a":1,}`, `{"a":1}`, "[1 2]", `"\x"`, `"\ud800"`, `"\u00"`, "\ufeff1", "\u00a01", "true", "TRUE", "\v1", "\"\x1f\"", `"\/"`)
	for _, text := range texts {
		for column, message := range map[string]outbox.Message{
			"topic":   {Topic: text},
			"headers": {Topic: "t", Headers: outbox.Headers{text: "x"}},
			"payload": {Topic: "t", Payload: json.RawMessage(text)},
		} {
			tx, err := d.owner.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, here := outbox.WritePgx(t.Context(), tx, message)
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			there := insert(column, text)
			mended := column == "headers" && text == "\xff" // by json.Marshal above
			if (here == nil) != (there == nil) && !mended {
				t.Errorf("%s %q: here %v, by the table %v", column, text, here, there)
			}
			if _, ofServer := errors.AsType[*pgconn.PgError](here); ofServer {
				t.Errorf("%s %q came to the server: %v", column, text, here)
			}
		}
	}
}

// TestSizeIsTheTables compares the count of octets with constraint row_size:
// for random messages, and at the limit itself.
func TestSizeIsTheTables(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	const ofTable = `SELECT coalesce(octet_length(payload::text), 0) + coalesce(octet_length(payload_bytes), 0)
		+ coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0) + coalesce(octet_length(headers::text), 0) FROM outbox.events`
	random := rand.New(rand.NewPCG(1, 2))
	texts := awkward()
	pick := func() string { return texts[random.IntN(len(texts))] + texts[random.IntN(len(texts))] }
	for range 200 {
		m := outbox.Message{Topic: "t", Key: outbox.Key(pick()), Type: pick(), Headers: outbox.Headers{}}
		for range random.IntN(5) {
			m.Headers["x"+pick()] = []any{pick(), nil, random.IntN(1000), -1.25, json.RawMessage("1.10"), []any{}, map[string]any{pick(): []string{pick()}, pick(): true}, false}[random.IntN(8)]
		}
		if random.IntN(2) == 0 {
			m.Payload = []byte(pick())
		} else {
			m.Payload = pick()
		}
		d.exec(t, "TRUNCATE outbox.events")
		write := func(w outbox.Writer) error {
			return pgx.BeginFunc(t.Context(), d.owner, func(tx pgx.Tx) error {
				_, err := w.Write(t.Context(), outbox.Pgx(tx), m)
				return err
			})
		}
		if err := write(outbox.Writer{}); err != nil {
			t.Fatal(err)
		}
		var want int
		if err := d.owner.QueryRow(t.Context(), ofTable).Scan(&want); err != nil {
			t.Fatal(err)
		}
		size, ok := errors.AsType[*outbox.SizeError](write(outbox.Writer{MaxBytes: 1}))
		if want > 1 && (!ok || size.Size != want) {
			t.Errorf("%+v: %v, by the table %d", m, size, want)
		}
	}
	for _, extra := range []int{0, 1} {
		err := pgx.BeginFunc(t.Context(), d.owner, func(tx pgx.Tx) error {
			_, err := (&outbox.Writer{MaxBytes: outbox.DefaultMaxBytes + 1}).Write(t.Context(), outbox.Pgx(tx),
				outbox.Message{Topic: "t", Type: "ab", Payload: make([]byte, outbox.DefaultMaxBytes-2+extra)})
			return err
		})
		if (err == nil) != (extra == 0) {
			t.Errorf("%d octets beyond the limit: %v", extra, err)
		}
	}
}
