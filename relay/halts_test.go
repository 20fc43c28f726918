package relay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// A halted case is a fault, what the relay says of it, and the proof that the
// way out which it prints works: the hint is executed to the letter, and then
// every row that was committed has arrived.
type haltCase struct {
	reason string
	before func(w *world, cfg *relay.Config) // before the relay starts
	after  func(w *world, r *running)        // while it leads
	mend   func(w *world, cfg *relay.Config) // where the hint is in words only
	want   []string                          // what has arrived in the end; nil: 1 and 2
}

const relayRole = `CREATE ROLE app_relay LOGIN REPLICATION; GRANT USAGE ON SCHEMA outbox TO app_relay;
GRANT SELECT, DELETE, UPDATE (tx) ON outbox.events TO app_relay; GRANT SELECT ON outbox.settings TO app_relay; GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.relays TO app_relay`

func as(w *world, user string) secret.Text {
	return secret.New(strings.Replace(w.pg.URL(), "postgres@", user+"@", 1))
}

func restarted(w *world) {
	w.t.Helper()
	if err := w.pg.Restart(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.db = postgres.Connect(w.t, w.pg.URL())
}

// loseSlot ends the relay's session and does something to the slot before it is back.
func loseSlot(sql string) func(*world, *running) {
	return func(w *world, r *running) {
		w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '1')`)
		r.awaitValues("1")
		r.awaitPublished(w)
		r.stop()
		w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '2')`)
		w.execScript(sql)
	}
}

var haltCases = []haltCase{
	{
		reason: "authentication",
		before: func(w *world, cfg *relay.Config) { cfg.DatabaseURL = as(w, "nobody") },
		mend:   func(w *world, cfg *relay.Config) { cfg.DatabaseURL = secret.New(w.pg.URL()) },
	},
	{
		reason: "database_missing",
		before: func(w *world, cfg *relay.Config) { cfg.DatabaseURL = secret.New(w.pg.DatabaseURL("nowhere")) },
		mend:   func(w *world, cfg *relay.Config) { cfg.DatabaseURL = secret.New(w.pg.URL()) },
	},
	{
		reason: "replication_privilege",
		before: func(w *world, cfg *relay.Config) {
			w.exec(relayRole)
			w.exec(`ALTER ROLE app_relay NOREPLICATION`)
			cfg.DatabaseURL = as(w, "app_relay")
		},
	},
	{
		reason: "grants",
		before: func(w *world, cfg *relay.Config) {
			w.exec(`CREATE ROLE app_relay LOGIN REPLICATION; GRANT USAGE ON SCHEMA outbox TO app_relay`)
			cfg.DatabaseURL = as(w, "app_relay")
		},
	},
	{
		reason: "wal_level",
		before: func(w *world, _ *relay.Config) {
			w.exec(`ALTER SYSTEM SET wal_level = replica`)
			restarted(w)
		},
		mend: func(w *world, _ *relay.Config) { restarted(w) },
	},
	{
		reason: "slots_exhausted",
		before: func(w *world, _ *relay.Config) {
			w.exec(`SELECT pg_create_physical_replication_slot('s' || i) FROM generate_series(1, current_setting('max_replication_slots')::int) i`)
		},
		mend: func(w *world, _ *relay.Config) { restarted(w) },
	},
	{
		reason: "slot_not_ours",
		before: func(w *world, _ *relay.Config) {
			w.exec(`CREATE DATABASE other`)
			other := postgres.Connect(w.t, w.pg.DatabaseURL("other"))
			if _, err := other.Exec(w.t.Context(), `SELECT pg_create_logical_replication_slot('outrider_test', 'pgoutput')`); err != nil {
				w.t.Fatal(err)
			}
		},
	},
	{
		reason: "slot_without_row",
		before: func(w *world, _ *relay.Config) {
			w.exec(`SELECT pg_create_logical_replication_slot('outrider_test', 'pgoutput')`)
		},
	},
	{
		reason: "rows_before_slot",
		before: func(w *world, _ *relay.Config) {
			w.exec(`ALTER TABLE outbox.events DROP COLUMN seq`)
			w.exec(`INSERT INTO outbox.events (topic, payload, headers) VALUES ('t', '0', '{"a": "b"}')`)
		},
	},
	{reason: "slot_missing", before: noRecovery, after: loseSlot(`SELECT pg_drop_replication_slot('outrider_test')`)},
	{reason: "slot_moved", before: noRecovery, after: loseSlot(`SELECT pg_replication_slot_advance('outrider_test', pg_current_wal_lsn())`)},
	{
		reason: "slot_lost",
		before: noRecovery,
		after: func(w *world, r *running) {
			loseSlot(`ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`)(w, r)
			w.exec(`SELECT pg_reload_conf()`)
			w.exec(`CREATE TABLE filler AS SELECT i, repeat('x', 200) FROM generate_series(1, 60000) i`)
			w.exec(`SELECT pg_switch_wal()`)
			w.exec(`CHECKPOINT`)
			await(w.t, func() error {
				if s := w.text(`SELECT wal_status FROM pg_replication_slots`); s != "lost" {
					w.exec(`CHECKPOINT`)
					return fmt.Errorf("slot is %s", s)
				}
				return nil
			})
		},
	},
	{reason: "other_system", after: loseSlot(`UPDATE outbox.relays SET system_id = '7'`), want: []string{"1", "1", "2"}},
	{
		reason: "synchronous_standby",
		before: func(w *world, _ *relay.Config) {
			w.exec(`ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (real, "*")'`)
			w.exec(`SELECT pg_reload_conf()`)
			w.exec(`SET synchronous_commit = local`)
		},
	},
	{
		reason: "contract_newer",
		after:  loseSlot(`UPDATE outbox.relays SET contract = 99`),
		mend:   func(w *world, _ *relay.Config) { w.exec(`UPDATE outbox.relays SET contract = 1`) }, // stands for a newer relay
	},
	{reason: "publication_missing", before: func(w *world, _ *relay.Config) { w.exec(`DROP PUBLICATION outrider`) }},
	{reason: "publication_lacks_table", before: func(w *world, _ *relay.Config) { w.exec(`ALTER PUBLICATION outrider DROP TABLE outbox.events`) }},
	{reason: "publication_without_inserts", before: func(w *world, _ *relay.Config) { w.exec(`ALTER PUBLICATION outrider SET (publish = 'delete')`) }},
	{
		reason: "publication_changed",
		before: noRecovery,
		after: func(w *world, r *running) {
			loseSlot(`DROP PUBLICATION outrider`)(w, r)
			w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '3')`)
			w.exec(`CREATE PUBLICATION outrider FOR TABLE outbox.events WITH (publish = 'insert')`)
		},
		want: []string{"1", "2", "3"},
	},
	{
		reason: "columns_missing",
		after: func(w *world, r *running) {
			w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '1')`)
			r.awaitValues("1")
			w.exec(`ALTER TABLE outbox.events RENAME COLUMN payload TO body`)
			w.exec(`INSERT INTO outbox.events (topic, body) VALUES ('t', '2')`)
		},
	},
}

func noRecovery(_ *world, cfg *relay.Config) { cfg.Recovery = "halt" }

func TestEveryHaltNamesAWayOutThatWorks(t *testing.T) {
	for _, c := range haltCases {
		t.Run(c.reason, func(t *testing.T) {
			t.Parallel()
			majors := []int{14, 18}
			for _, major := range majors {
				t.Run(fmt.Sprint(major), func(t *testing.T) { c.run(t, major) })
			}
		})
	}
}

func (c haltCase) run(t *testing.T, major int) {
	w := newWorld(t, major)
	cfg := w.config()
	sink := &memory{}
	if c.before != nil {
		c.before(w, &cfg)
	}
	r := w.start(cfg, sink)
	if c.after != nil {
		r.awaitRole(relay.RoleLeader, "")
		c.after(w, r)
		r.stop()
		r = w.start(cfg, sink)
	}
	s := r.awaitRole(relay.RoleHalted, c.reason)
	if s.Hint == "" || s.Error == "" {
		t.Fatalf("halted without error or hint: %+v", s)
	}
	t.Logf("%s\nhint: %s", s.Error, s.Hint)
	if err := r.Live(); err != nil {
		t.Errorf("halted is not alive: %v", err)
	}

	then := w.follow(s.Hint, &cfg)
	if c.mend != nil {
		c.mend(w, &cfg)
	}
	if r.Status().Role == relay.RoleHalted && cfgDiffers(cfg, w, r) {
		r.stop()
		r = w.start(cfg, sink)
	}
	r.awaitRole(relay.RoleLeader, "")
	w.execScript(then)
	if c.after == nil {
		w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '1')`)
		w.exec(`INSERT INTO outbox.events (topic, payload) VALUES ('t', '2')`)
	}
	if c.want == nil {
		c.want = []string{"1", "2"}
	}
	r.awaitValues(c.want...)
}

// cfgDiffers tells whether the hint asked for another environment, hence a restart; else the relay must go on by itself.
func cfgDiffers(cfg relay.Config, w *world, r *running) bool {
	have := w.config()
	return cfg.Recovery == "recover" || cfg.AcceptIdentity != "" || cfg.Name != have.Name || cfg.ColumnPayload != have.ColumnPayload || r.Status().Reason == "authentication" || r.Status().Reason == "database_missing"
}

// follow does the first way out of a hint to the letter, and returns what is to be done once the relay leads.
func (w *world) follow(hint string, cfg *relay.Config) (then string) {
	w.t.Helper()
	first, _, _ := strings.Cut(hint, "\nor: ")
	first, then, _ = strings.Cut(first, "\nand when /status says leader:")
	var sql []string
	for _, line := range strings.Split(first, "\n")[1:] {
		line = strings.TrimPrefix(line, "  ")
		switch {
		case strings.HasPrefix(line, "OUTRIDER_"):
			w.setEnv(line, cfg)
		case line == "outrider migrate up":
			w.migrate(w.db)
		default:
			sql = append(sql, line)
		}
	}
	w.execScript(strings.Join(sql, "\n"))
	return then
}

func (w *world) setEnv(line string, cfg *relay.Config) {
	w.t.Helper()
	name, value, _ := strings.Cut(line, "=")
	switch name {
	case "OUTRIDER_NAME":
		cfg.Name = value
	case "OUTRIDER_RECOVERY":
		cfg.Recovery = value
	case "OUTRIDER_ACCEPT_IDENTITY":
		cfg.AcceptIdentity = value
	case "OUTRIDER_COLUMN_PAYLOAD":
		cfg.ColumnPayload = value
	default:
		w.t.Fatalf("hint names %s, which this test does not know", name)
	}
}

// execScript runs statements one by one, as psql does. A slot may be held for a
// moment by the relay that tries again: whoever is told 55006 tries again too.
func (w *world) execScript(sql string) {
	w.t.Helper()
	for statement := range strings.SplitSeq(sql, ";\n") {
		statement = strings.TrimSuffix(strings.TrimSpace(statement), ";")
		if statement == "" {
			continue
		}
		await(w.t, func() error {
			_, err := w.db.Exec(w.t.Context(), statement)
			if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code == "55006" {
				return err
			}
			if err != nil {
				w.t.Fatalf("%s: %v", statement, err)
			}
			return nil
		})
	}
}

// Every reason in the source has a case above.
func TestHaltCasesAreComplete(t *testing.T) {
	elsewhere := map[string]string{
		"pooler":             "package replication tests the refusal; its hint is in words",
		"database_rewound":   "TestDatabaseThatWasSetBack",
		"options_changed":    "TestReplayDiffers",
		"checkpoint_lost":    "TestCheckpointLost",
		"replay_differs":     "TestReplayDiffers",
		"poison":             "TestPoisonHalts",
		"xids_not_kept":      "TestTrustXIDsAfterARestoreIsRefused",
		"tls":                "TestPostgresRefuses and TestPostgresRotation in package securitytest",
		"wal_sender_timeout": "only behind something that drops startup options",
	}
	covered := map[string]bool{}
	for _, c := range haltCases {
		covered[c.reason] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:halt\(|recoverFrom\(c, )"([a-z_]+)"`).FindAllSubmatch(src, -1) {
			if reason := string(m[1]); !covered[reason] && elsewhere[reason] == "" {
				t.Errorf("%s: nothing tests the way out of %q", f, reason)
			}
		}
	}
}

// A schema that is not there yet is waited for: a sidecar starts before its application's migration.
func TestWaitsForTheSchema(t *testing.T) {
	pg := postgres.Start(t, 15)
	w := &world{t: t, pg: pg, db: postgres.Connect(t, pg.URL())}
	r := w.start(w.config(), &memory{})
	s := r.awaitRole(relay.RoleWaiting, "schema_missing")
	if !strings.Contains(s.Hint, "outrider migrate up") {
		t.Errorf("hint is %q", s.Hint)
	}
	if err := r.Ready(); err != nil {
		t.Errorf("waiting for the schema is not ready: %v", err)
	}
	w.migrate(w.db)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1)
	r.awaitValues("1")
}

// Poison halts, and goes on by itself when the message can be published.
func TestPoisonHaltsAndNothingIsSkipped(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.write(1)
	r.awaitValues("1")
	r.sink.refuseWith(fmt.Errorf("%w: refused for the test", relay.ErrPoison))
	w.write(2, 3)
	r.awaitRole(relay.RoleHalted, "poison")
	if flushed, row := w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`), w.text(`SELECT confirmed_lsn::text FROM outbox.relays`); flushed > row {
		t.Errorf("slot at %s, row at %s", flushed, row)
	}
	r.sink.refuseWith(nil)
	r.awaitValues("1", "2", "3")
}

func TestExitOnHalt(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`DROP PUBLICATION outrider`)
	cfg := w.config()
	cfg.ExitOnHalt = true
	r := w.start(cfg, &memory{})
	if err := <-r.done; !errors.Is(err, relay.ErrFatal) {
		t.Errorf("Run returned %v, want an error of class %v", err, relay.ErrFatal)
	}
	r.done <- nil
}
