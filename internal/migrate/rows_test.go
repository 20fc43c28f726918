package migrate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/migrate"
)

func testRowsRefused(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	const check, notNull = "23514", "23502"
	for _, bad := range []struct {
		constraint, sql string
	}{
		{"topic_name", `(topic) VALUES ('')`},
		{"topic_name", `(topic) VALUES ('.')`},
		{"topic_name", `(topic) VALUES ('..')`},
		{"topic_name", `(topic) VALUES ('a b')`},
		{"topic_name", `(topic) VALUES (E'a\n')`},
		{"topic_name", `(topic) VALUES ('ä')`},
		{"topic_name", `(topic) VALUES (repeat('a', 250))`},
		{"one_payload", `(topic, payload, payload_bytes) VALUES ('t', '1', '1')`},
		{"headers_object", `(topic, headers) VALUES ('t', '[]')`},
		{"headers_object", `(topic, headers) VALUES ('t', '"x"')`},
		{"headers_object", `(topic, headers) VALUES ('t', 'null')`},
		{"reserved_header", `(topic, headers) VALUES ('t', '{"a": "1", "id": "x"}')`},
		{"reserved_header", `(topic, headers) VALUES ('t', '{"type": null}')`},
		{"reserved_header", `(topic, headers) VALUES ('t', '{"outrider-position": "x"}')`},
		{"reserved_header", `(topic, headers) VALUES ('t', '{"outrider-": {"id": 1}}')`},
		{"row_size", `(topic, payload_bytes) VALUES ('t', decode(repeat('00', 950001), 'hex'))`},
		{"row_size", `(topic, payload) VALUES ('t', ('"' || repeat('ä', 475000) || '"')::json)`},
		{"row_size", `(topic, key, payload_bytes) VALUES ('t', 'k', decode(repeat('00', 950000), 'hex'))`},
		{"row_size", `(topic, type, payload_bytes) VALUES ('t', 'k', decode(repeat('00', 950000), 'hex'))`},
		{"row_size", `(topic, headers, payload_bytes) VALUES ('t', '{}', decode(repeat('00', 950000), 'hex'))`},
	} {
		err := refused(t, db.Conn, check, "INSERT INTO outbox.events "+bad.sql)
		if err.ConstraintName != bad.constraint || !strings.Contains(err.Message, bad.constraint) {
			t.Errorf("%s: constraint %q, message %q; want %s", bad.sql, err.ConstraintName, err.Message, bad.constraint)
		}
	}
	if err := refused(t, db.Conn, notNull, `INSERT INTO outbox.events (topic) VALUES (NULL)`); err.ColumnName != "topic" {
		t.Errorf("topic NULL: column %q", err.ColumnName)
	}
	refused(t, db.Conn, "22P02", `INSERT INTO outbox.events (topic, payload) VALUES ('t', '{')`)
	refused(t, db.Conn, "428C9", `INSERT INTO outbox.events (topic, seq) VALUES ('t', 7)`)
	must(t, db.Conn, `INSERT INTO outbox.events (id, topic) VALUES ('00000000-0000-7000-8000-000000000000', 't')`)
	refused(t, db.Conn, "23505", `INSERT INTO outbox.events (id, topic) VALUES ('00000000-0000-7000-8000-000000000000', 't')`)
}

func testRowsAccepted(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	for _, good := range []string{
		`(topic) VALUES ('t')`, // a tombstone without a key
		`(topic) VALUES (repeat('a', 249))`,
		`(topic) VALUES ('...')`,
		`(topic) VALUES ('aZ09._-')`,
		`(topic, key, payload) VALUES ('t', '', 'null')`,
		`(topic, payload_bytes) VALUES ('t', '')`,
		`(topic, headers) VALUES ('t', '{}')`,
		`(topic, headers) VALUES ('t', '{"identity": "x", "types": 1, "Id": "y", "x-outrider-y": null, "nested": {"id": 1}}')`,
		`(topic, key, payload_bytes) VALUES ('t', 'k', decode(repeat('00', 949999), 'hex'))`,
	} {
		must(t, db.Conn, "INSERT INTO outbox.events "+good)
	}
	// The text of json is kept: spaces, order, doubles, escapes, big numbers.
	const text = `{"b":1,  "a":2, "b":3, "n":1.10e400, "z":"\u0000"}`
	got := get[string](t, db.Conn, `INSERT INTO outbox.events (topic, payload) VALUES ('t', $1::json) RETURNING payload::text`, text)
	if got != text {
		t.Errorf("payload %q, want %q", got, text)
	}
	// A jsonb parameter is assigned, as jsonb wrote it.
	if got := get[string](t, db.Conn, `INSERT INTO outbox.events (topic, payload) VALUES ('t', $1::jsonb) RETURNING payload::text`, `{"b":1,"a":2}`); got != `{"a": 2, "b": 1}` {
		t.Errorf("payload from jsonb %q", got)
	}
	// An ordinary row gets its defaults, and no header.
	if !get[bool](t, db.Conn, `INSERT INTO outbox.events (topic) VALUES ('t')
RETURNING headers IS NULL AND created_at = now() AND tx = pg_current_xact_id() AND seq > 0`) {
		t.Error("defaults")
	}
	if !get[bool](t, db.Conn, `SELECT count(DISTINCT seq) = count(*) AND count(*) > 10 FROM outbox.events`) {
		t.Error("seq repeats")
	}
}

func testForgedTx(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	forge := map[string]func(tx pgx.Tx) error{
		"insert": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO outbox.events (topic, tx) VALUES ('t', '3')`)
			return err
		},
		"insert null": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO outbox.events (topic, tx) VALUES ('t', NULL)`)
			return err
		},
		"insert from the future": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO outbox.events (topic, tx) SELECT 't', '9999999999'`)
			return err
		},
		"copy": func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().CopyFrom(t.Context(), strings.NewReader("t\t3\nt\t4\n"), `COPY outbox.events (topic, tx) FROM STDIN`)
			return err
		},
		"replica": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica; INSERT INTO outbox.events (topic, tx) VALUES ('t', '3')`)
			return err
		},
		"savepoint": func(tx pgx.Tx) error { // the top-level transaction counts
			_, err := tx.Exec(t.Context(), `SAVEPOINT a; INSERT INTO outbox.events (topic, tx) VALUES ('t', '3'); INSERT INTO outbox.events (topic) VALUES ('t')`)
			return err
		},
	}
	for name, write := range forge {
		err := pgx.BeginFunc(t.Context(), db.Conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "DELETE FROM outbox.events"); err != nil {
				return err
			}
			if err := write(tx); err != nil {
				return err
			}
			var own, all int
			err := tx.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE tx = pg_current_xact_id()), count(*) FROM outbox.events`).Scan(&own, &all)
			if own != all || all == 0 {
				t.Errorf("%s: %d of %d rows carry the transaction that wrote them", name, own, all)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// testExplicitNulls: many ORMs send NULL for a field that nobody set, where the DEFAULT does not apply.
func testExplicitNulls(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	if !get[bool](t, db.Conn, `INSERT INTO outbox.events (id, topic, key, type, payload, payload_bytes, headers, created_at)
VALUES (NULL, 't', NULL, NULL, NULL, NULL, NULL, NULL) RETURNING id IS NOT NULL AND created_at = now() AND headers IS NULL`) {
		t.Error("defaults for explicit NULLs")
	}
	for _, column := range []string{"id", "created_at"} { // each alone
		must(t, db.Conn, `INSERT INTO outbox.events (topic, `+column+`) VALUES ('t', NULL)`)
	}
	must(t, db.Conn, `BEGIN; SET LOCAL outbox.headers = '{"a": "1"}'`)
	if got := get[string](t, db.Conn, `INSERT INTO outbox.events (topic, headers) VALUES ('t', NULL) RETURNING headers::text`); got != `{"a": "1"}` {
		t.Errorf("headers %s", got)
	}
	must(t, db.Conn, `COMMIT`)
	// A given id stays.
	const id = "11111111-1111-4111-8111-111111111111"
	if got := get[string](t, db.Conn, `INSERT INTO outbox.events (id, topic, created_at) VALUES ($1, 't', NULL) RETURNING id::text`, id); got != id {
		t.Errorf("id %s", got)
	}
}

func testContextHeaders(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	const row = `INSERT INTO outbox.events (topic) VALUES ('t') RETURNING coalesce(headers::text, 'NULL')`
	for _, c := range []struct{ headers, traceparent, want string }{
		{"", "", "NULL"},
		{`{"a": 1}`, "", `{"a": 1}`},
		{"", "00-x-y-01", `{"traceparent": "00-x-y-01"}`},
		{`{"a": "1", "traceparent": "old"}`, "new", `{"a": "1", "traceparent": "new"}`},
		{`{}`, "", `{}`},
	} {
		err := pgx.BeginFunc(t.Context(), db.Conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `SELECT set_config('outbox.headers', $1, true), set_config('outbox.traceparent', $2, true)`, c.headers, c.traceparent)
			if err != nil {
				return err
			}
			var got string
			err = tx.QueryRow(t.Context(), row).Scan(&got)
			if got != c.want {
				t.Errorf("%+v: headers %s", c, got)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// After SET LOCAL the setting exists, and is empty.
	if got := get[string](t, db.Conn, row); got != "NULL" {
		t.Errorf("after the transaction: headers %s", got)
	}
	for _, bad := range []string{"{", `{"a": "\u0000"}`, `["a"]`, `null`, `1`} {
		must(t, db.Conn, "SELECT set_config('outbox.headers', $1, false)", bad)
		if err := refused(t, db.Conn, "22023", `INSERT INTO outbox.events (topic) VALUES ('t')`); !strings.Contains(err.Message, "outbox.headers") || err.Hint == "" {
			t.Errorf("%s: message %q, hint %q", bad, err.Message, err.Hint)
		}
	}
	must(t, db.Conn, `SELECT set_config('outbox.headers', '{"id": "x"}', false)`)
	if err := refused(t, db.Conn, "23514", `INSERT INTO outbox.events (topic) VALUES ('t')`); err.ConstraintName != "reserved_header" {
		t.Errorf("constraint %q", err.ConstraintName)
	}
	// Headers of the row win, whatever the setting holds; those of the setting lie under them.
	must(t, db.Conn, `SELECT set_config('outbox.headers', '{"a": "1", "b": "1"}', false)`)
	if got := get[string](t, db.Conn, `INSERT INTO outbox.events (topic, headers) VALUES ('t', '{"a": null}') RETURNING headers::text`); got != `{"a": null, "b": "1"}` {
		t.Errorf("own headers over those of the setting: %s", got)
	}
}

func testUUIDv7(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	before := time.Now().Add(-time.Second)
	rows, err := db.Query(t.Context(), `SELECT outbox.uuid_v7() FROM generate_series(1, 5000)`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[16]byte]bool{}
	var last int64
	for _, id := range ids {
		var ms int64
		for _, b := range id[:6] {
			ms = ms<<8 | int64(b)
		}
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Fatalf("%x: version %d, variant %b", id, id[6]>>4, id[8]>>6)
		}
		if ms < last || ms < before.UnixMilli() || ms > time.Now().Add(time.Second).UnixMilli() {
			t.Fatalf("%x: made at %d ms, the one before at %d ms, now is %d ms", id, ms, last, time.Now().UnixMilli())
		}
		if seen[id] {
			t.Fatalf("%x twice", id)
		}
		seen[id], last = true, ms
	}
	// Ids of one millisecond sort by its fractions too: later statements have greater ids.
	var pair [2]string
	for range 100 {
		pair[0], pair[1] = pair[1], get[string](t, db.Conn, `SELECT outbox.uuid_v7()::text`)
		if pair[0] >= pair[1] {
			t.Errorf("%s after %s", pair[1], pair[0])
		}
	}
}

func testProgressRow(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	must(t, db.Conn, `CREATE PUBLICATION everything FOR ALL TABLES`)
	const insert = `INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase) VALUES ('s', 1, '7', 1, $1)`
	if err := refused(t, db.Conn, "23514", insert, "sleeping"); err.ConstraintName != "known_phase" {
		t.Errorf("constraint %q", err.ConstraintName)
	}
	must(t, db.Conn, insert, "creating")
	refused(t, db.Conn, "23505", insert, "creating")
	const update = `UPDATE outbox.relays SET phase = 'streaming', epoch = epoch + 1, write_seq = write_seq + 1, base = pg_current_snapshot(),
 cutoff = pg_current_snapshot(), published = pg_current_snapshot(), confirmed_lsn = pg_current_wal_lsn(), updated_at = clock_timestamp()`
	// Also where many slots share the table: pages have room for the next version of each row.
	must(t, db.Conn, `INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase) SELECT 'r' || n, 1, '7', 1, 'creating' FROM generate_series(1, 60) n`)
	err := pgx.BeginFunc(t.Context(), db.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), update); err != nil {
			return err
		}
		var all, hot int
		err := tx.QueryRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relid = 'outbox.relays'::regclass`).Scan(&all, &hot)
		if hot != all || all != 61 {
			t.Errorf("%d of %d updates are heap-only, want 61 of 61", hot, all)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, db.Conn, `DELETE FROM outbox.relays WHERE slot <> 's'`)
	before := get[int](t, db.Conn, `SELECT pg_relation_size('outbox.relays')::int`)
	for range 300 {
		must(t, db.Conn, update)
	}
	if size := get[int](t, db.Conn, `SELECT pg_relation_size('outbox.relays')::int`); size > before+8192 {
		t.Errorf("300 updates of one row took the table from %d to %d bytes", before, size)
	}
	columns := `slot text|contract integer|system_id text|timeline integer|history text|delivery text|phase text|epoch bigint|write_seq bigint|generation bigint|base pg_snapshot|base_lsn pg_lsn|cutoff pg_snapshot|cursor bigint|paid_base pg_snapshot|paid_cursor bigint|stuck_since timestamp with time zone|candidate text|candidate_at timestamp with time zone|published pg_snapshot|confirmed_lsn pg_lsn|position text|options_hash text|fingerprint text|instance text|timeout_ms bigint|released boolean|updated_at timestamp with time zone`
	got := get[string](t, db.Conn, `SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), '|' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'outbox.relays'::regclass AND attnum > 0`)
	if diff := cmp.Diff(strings.Split(columns, "|"), strings.Split(got, "|")); diff != "" {
		t.Errorf("columns that the relay reads (-want +got):\n%s", diff)
	}
}
