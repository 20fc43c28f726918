package orm

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// database is a server with the outbox, a shop, and the role of an application
// that has what the migrations grant and nothing else.
type database struct {
	owner *pgx.Conn
	url   string // of the application's role
}

// Order 13 cannot be paid: the update fails behind the messages.
const shop = `CREATE TABLE orders (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'new', CHECK (id <> 13 OR state <> 'paid'));
	INSERT INTO orders (id) VALUES (42), (13);
	DROP ROLE IF EXISTS app_of_orm; CREATE ROLE app_of_orm LOGIN; GRANT SELECT, INSERT, UPDATE ON orders TO app_of_orm`

func open(t testing.TB, major int, names migrations.Names) *database {
	t.Helper()
	server := postgres.Start(t, major)
	server.Private(t) // a role belongs to the whole server
	owner, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(t.Context()) })
	script, err := migrations.Script(names, []migrations.Role{{Privilege: migrations.AppRole, Name: "app_of_orm"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{shop, script} {
		if _, err := owner.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("app_of_orm")
	return &database{owner: owner, url: u.String()}
}

// row is what a committed message looks like to an outsider.
type row struct {
	ID, Topic               string
	Key, Type, JSON, Header *string
	Bytes                   []byte
}

func (d *database) rows(t testing.TB) []row {
	t.Helper()
	found, err := d.owner.Query(t.Context(), "SELECT id::text, topic, key, type, payload::text, headers::text, payload_bytes FROM outbox.events ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := pgx.CollectRows(found, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func (d *database) state(t testing.TB, order int64) string {
	t.Helper()
	var state string
	if err := d.owner.QueryRow(t.Context(), "SELECT state FROM orders WHERE id = $1", order).Scan(&state); err != nil {
		t.Fatal(err)
	}
	return state
}

func (d *database) exec(t testing.TB, sql string) {
	t.Helper()
	if _, err := d.owner.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// sameHeaders compares JSON objects, of which jsonb changes spaces and order,
// but not the digits of numbers.
func sameHeaders(t testing.TB, got *string, want map[string]any) bool {
	t.Helper()
	if got == nil || len(want) == 0 {
		return got == nil && len(want) == 0
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	decode := func(text string) (v any) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return reflect.DeepEqual(decode(*got), decode(string(text)))
}
