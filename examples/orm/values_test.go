package orm

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// TestIDAsParameter: an application keeps the ids of its events beside its own
// rows, as uuid or as text, in every protocol.
func TestIDAsParameter(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	id, err := outbox.NewID()
	if err != nil {
		t.Fatal(err)
	}
	const query = "SELECT $1::uuid, $1::uuid::text, $2::text"
	check := func(name string, scan func(dest ...any) error) {
		t.Helper()
		var got [3]outbox.ID
		if err := scan(&got[0], &got[1], &got[2]); err != nil || got != [3]outbox.ID{id, id, id} {
			t.Errorf("%s: %v, %v, want %s", name, got, err, id)
		}
	}
	for _, driver := range []string{"postgres", "pgx"} {
		check(driver, openSQL(t, driver, d.url).QueryRowContext(t.Context(), query, id, id).Scan)
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		check(mode.String(), openPool(t, d.url, mode).QueryRow(t.Context(), query, id, id).Scan)
	}
}

func TestViewWithTheSameColumns(t *testing.T) {
	d := open(t, 0, migrations.Names{})
	d.exec(t, `CREATE VIEW outbox."Events of shop" AS SELECT id, topic, key, type, payload, payload_bytes, headers FROM outbox.events`)
	w := outbox.Writer{Table: "Events of shop"}
	err := pgx.BeginFunc(t.Context(), d.owner, func(tx pgx.Tx) error {
		for _, msgs := range [][]outbox.Message{{{Topic: "a"}}, {{Topic: "b"}, {Topic: "c", Payload: 1}}} {
			if _, err := w.Write(t.Context(), outbox.Pgx(tx), msgs...); err != nil {
				return err
			}
		}
		outboxtest.RequireWrittenPgx(t, tx, outboxtest.Match{Topic: "a"}, outboxtest.Match{Topic: "b"}, outboxtest.Match{Topic: "c", Payload: 1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
