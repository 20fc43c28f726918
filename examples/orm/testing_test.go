package orm

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// testPaying is shown in docs/producing-go.md.
func testPaying(t *testing.T, db *sql.DB, pay func(context.Context, *sql.Tx, int64) error) {
	t.Helper()
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	outboxtest.RequireNothing(t, tx)
	if err := pay(ctx, tx, 42); err != nil {
		t.Fatal(err)
	}
	outboxtest.RequireWritten(t, tx, outboxtest.Match{
		Topic:   "orders",
		Key:     outbox.Key("42"),
		Payload: OrderPaid{Order: 42, Total: "9.90"},
	})
}

// As testing_test shows it, with a role that may read, on each driver.
func TestWhatATransactionHasWritten(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	for _, driver := range []string{"postgres", "pgx"} {
		testPaying(t, openSQL(t, driver, d.owner.Config().ConnString()), func(ctx context.Context, tx *sql.Tx, order int64) error {
			_, err := outbox.Write(ctx, tx, paid(order))
			return err
		})
	}
	if rows := d.rows(t); len(rows) != 0 {
		t.Errorf("%d messages after a rollback", len(rows))
	}
}

// TestOnlyThisTransaction: rows that others commit in the meantime are visible
// at READ COMMITTED and do not count; those under a savepoint count unless they were rolled back to it.
func TestOnlyThisTransaction(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	d.exec(t, "INSERT INTO outbox.events (topic) VALUES ('before')")
	ctx := t.Context()
	db := openSQL(t, "pgx", d.owner.Config().ConnString())
	tx, err := d.owner.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	outboxtest.RequireNothingPgx(t, tx)
	write := func(tx pgx.Tx, topic string) {
		t.Helper()
		if _, err := outbox.WritePgx(ctx, tx, outbox.Message{Topic: topic, Payload: []byte(topic), Headers: outbox.Headers{"a": topic, "b": nil, "c": 1}}); err != nil {
			t.Fatal(err)
		}
	}
	write(tx, "first")
	if _, err := db.ExecContext(ctx, "INSERT INTO outbox.events (topic) VALUES ('other')"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lost", "kept"} {
		inner, err := tx.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		write(inner, name)
		if name == "kept" {
			err = inner.Commit(ctx)
		} else {
			err = inner.Rollback(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	outboxtest.RequireWrittenPgx(t, tx, outboxtest.Match{Topic: "first", NoKey: true},
		outboxtest.Match{Topic: "kept", Payload: []byte("kept"), Headers: outbox.Headers{"a": "kept", "b": nil, "c": 1}})

	another, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer another.Rollback()
	outboxtest.RequireNothing(t, another)
	if got := d.rows(t); len(got) != 4 {
		t.Errorf("the table shows %d rows to this connection, want 4: before, first, other, kept", len(got))
	}
}

func TestOtherNames(t *testing.T) {
	d := open(t, 0, migrations.Names{Schema: "events_of_shop", Publication: "shop"})
	db := bun.NewDB(openSQL(t, "pgx", d.owner.Config().ConnString()), pgdialect.New())
	w := outbox.Writer{Schema: "events_of_shop"}
	err := db.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := w.Write(ctx, tx.Tx, outbox.Message{Topic: "a"}, outbox.Message{Topic: "b", Headers: outbox.Headers{"x": "y"}}); err != nil {
			return err
		}
		outboxtest.Require(t, outboxtest.Read(t, tx, outboxtest.Outbox{Schema: "events_of_shop"}),
			outboxtest.Match{Topic: "a"}, outboxtest.Match{Topic: "b", Headers: outbox.Headers{"x": "y"}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// newWriter is shown in docs/producing-go.md.
func newWriter() *outbox.Writer {
	return &outbox.Writer{
		ContextHeaders: func(ctx context.Context) map[string]string {
			headers := propagation.MapCarrier{}
			propagation.TraceContext{}.Inject(ctx, headers)
			return headers
		},
	}
}

func TestTraceOfOpenTelemetry(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	tx, err := d.owner.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := newWriter().Write(ctx, outbox.Pgx(tx), outbox.Message{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	outboxtest.RequireWrittenPgx(t, tx, outboxtest.Match{
		Headers: outbox.Headers{"traceparent": "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-01"},
	})
}

// TestOrderOfACrowd: the column seq, by which the relay reads what lies before
// its slot, follows the arguments.
func TestOrderOfACrowd(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	msgs := make([]outbox.Message, 20000)
	for i := range msgs {
		msgs[i] = outbox.Message{Topic: "t", Payload: i}
	}
	var ids []outbox.ID
	err := pgx.BeginFunc(t.Context(), d.owner, func(tx pgx.Tx) (err error) {
		ids, err = outbox.WritePgx(t.Context(), tx, msgs...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := d.rows(t)
	if len(rows) != len(msgs) || len(ids) != len(msgs) {
		t.Fatalf("%d rows and %d ids of %d messages", len(rows), len(ids), len(msgs))
	}
	for i, got := range rows {
		if got.ID != ids[i].String() {
			t.Fatalf("row %d is %s, want %s", i, got.ID, ids[i])
		}
	}
}
