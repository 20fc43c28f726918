package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// either is an address that leads to whichever of the servers is there.
func either(servers ...*postgres.Server) secret.Text {
	url := servers[0].URL()
	for _, s := range servers[1:] {
		at := fmt.Sprintf(":%d", servers[0].Port())
		url = strings.Replace(url, at, fmt.Sprintf("%s,127.0.0.1:%d", at, s.Port()), 1)
	}
	return secret.New(url + sep(url) + "target_session_attrs=read-write")
}

// goTo crashes the server of the world and starts another in its place.
func (w *world) goTo(next *postgres.Server) {
	w.t.Helper()
	if err := w.pg.Crash(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.arrive(next)
}

func (w *world) arrive(at *postgres.Server) {
	w.t.Helper()
	if at.Pid() == 0 {
		if err := at.Start(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	w.pg, w.db = at, postgres.Connect(w.t, at.URL())
}

func (w *world) clone() *postgres.Server {
	w.t.Helper()
	clone, err := w.pg.Clone(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = clone.Close() })
	return clone
}

// A database that is older than what was published from it: a snapshot of the
// storage that was put back, or a clone beside production to which the address
// leads. A relay that has run through it stops. One that is started afterwards
// cannot know, and goes on from what the database says: the rows that are gone
// stay on Kafka, and those that are written now all come.
func TestDatabaseIsACopyOfItself(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			r.stop()
			clone := w.clone()
			cfg := w.config()
			cfg.DatabaseURL = either(w.pg, clone)
			r = w.start(cfg, r.sink)
			r.awaitRole(relay.RoleLeader, "")
			w.write(2)
			r.awaitValues("1", "2")
			r.awaitPublished(w)
			production := w.pg
			w.goTo(clone)
			w.write(12)
			r.awaitRole(relay.RoleHalted, "database_rewound")
			w.goTo(production) // by the first hint: the address leads to production again
			w.write(3)
			r.awaitFirsts("1", "2", "3")
			w.goTo(clone) // and by the second: it was on purpose
			r.awaitRole(relay.RoleHalted, "database_rewound")
			r.stop()
			r = w.start(cfg, r.sink)
			w.write(13)
			r.awaitFirsts("1", "2", "3", "12", "13")
		})
	}
}

// A primary that was replaced comes back, and has the slot still: its rows never happened.
func TestOldPrimaryComesBack(t *testing.T) {
	for _, major := range []int{14, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, major)
			standby := w.pg.StartStandby(t, "phys")
			cfg := w.config()
			cfg.DatabaseURL = either(w.pg, standby)
			r := w.start(cfg, &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			w.awaitReplay("phys")
			old := w.pg
			if err := old.Crash(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.arrive(standby)
			r.awaitTimeline(2)
			w.write(2)
			r.awaitFirsts("1", "2")
			r.awaitPublished(w)
			w.goTo(old)
			w.write(99)
			r.awaitRole(relay.RoleWaiting, "timeline")
			r.stop()
			w.goTo(standby) // the relay of another process knows by the row
			r = w.start(cfg, r.sink)
			w.write(3)
			r.awaitFirsts("1", "2", "3")
		})
	}
}

// answer restarts a halted relay with one of the answers that it prints.
func (r *running) answer(w *world, cfg relay.Config, choice string) *running {
	r.t.Helper()
	s := r.awaitRole(relay.RoleHalted, "other_system")
	found := regexp.MustCompile(`OUTRIDER_ACCEPT_IDENTITY=(\w+:` + choice + `)\b`).FindStringSubmatch(s.Hint)
	if found == nil {
		r.t.Fatalf("the hint does not name %s: %q", choice, s.Hint)
	}
	r.stop()
	cfg.AcceptIdentity = found[1]
	return w.start(cfg, r.sink)
}

// A dump is restored on another server, of another major at that. Transaction
// ids in the rows are those of the old one.
func TestDumpAndRestore(t *testing.T) {
	for choice, want := range map[string]string{"republish": "1 2 3 4", "none": "1 4"} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			w := newWorldOn(t, distribution(t, 15))
			for range 50 { // ids of the old server are ahead of the new one's
				w.exec(`CREATE TEMPORARY TABLE x (); DROP TABLE x`)
			}
			r := w.start(w.config(), &memory{})
			r.awaitPhase(w, "streaming")
			w.write(1)
			r.awaitValues("1")
			r.awaitPublished(w)
			r.stop()
			w.write(2, 3)
			restored := postgres.Start(t, 18)
			w.restore(restored)
			cfg := w.config()
			r = w.start(cfg, r.sink)
			r = r.answer(w, cfg, choice)
			r.awaitPhase(w, "streaming")
			w.write(4)
			r.awaitFirsts(strings.Fields(want)...)
		})
	}
}

// restore moves the database to another server, by pg_dump where it is at hand.
func (w *world) restore(to *postgres.Server) {
	w.t.Helper()
	from := w.pg
	program, err := from.Tool("pg_dump")
	if err == nil {
		out, err := exec.CommandContext(w.t.Context(), program, "--inserts", "--no-owner", "-d", from.URL()).Output()
		if err != nil {
			w.t.Fatal(err)
		}
		w.arrive(to)
		var sql []string
		for line := range strings.Lines(string(out)) { // backslash commands are psql's
			if !strings.HasPrefix(line, "\\") {
				sql = append(sql, line)
			}
		}
		db := postgres.Connect(w.t, to.URL()) // a dump empties its search_path
		if _, err := db.PgConn().Exec(w.t.Context(), strings.Join(sql, "")).ReadAll(); err != nil {
			w.t.Fatal(err)
		}
		w.t.Log("moved by pg_dump")
		return
	}
	w.t.Log("moved by COPY: ", err)
	w.arrive(to)
	w.migrate(w.db)
	old := postgres.Connect(w.t, from.URL())
	w.exec(`ALTER TABLE outbox.events DISABLE TRIGGER USER`)
	for _, table := range []string{"outbox.events", "outbox.relays"} {
		var buffer bytes.Buffer
		_, err := old.PgConn().CopyTo(w.t.Context(), &buffer, `COPY `+table+` TO STDOUT`)
		if err == nil {
			_, err = w.db.PgConn().CopyFrom(w.t.Context(), &buffer, `COPY `+table+` FROM STDIN`)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.exec(`ALTER TABLE outbox.events ENABLE TRIGGER USER`)
	w.exec(`SELECT setval(pg_get_serial_sequence('outbox.events', 'seq'), max(seq)) FROM outbox.events`)
}

// pg_upgrade gives the data another system identifier and keeps transaction ids.
func TestUpgrade(t *testing.T) {
	server := distribution(t, 15)
	w := newWorldOn(t, server)
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	r.awaitPublished(w)
	r.stop()
	w.write(2, 3)
	w.upgrade()
	cfg := w.config()
	r = w.start(cfg, r.sink)
	r = r.answer(w, cfg, "trust-xids")
	w.write(4)
	r.awaitValues("1", "2", "3", "4")
}

// upgrade moves the world to an upgraded cluster. Where pg_upgrade is not at
// hand, the row says what it would say afterwards.
func (w *world) upgrade() {
	w.t.Helper()
	if _, err := w.pg.Tool("pg_upgrade"); errors.Is(err, postgres.ErrNoTool) {
		w.t.Log("no pg_upgrade: ", err)
		w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
		w.exec(`UPDATE outbox.relays SET system_id = '1' || system_id`)
		return
	}
	if err := w.pg.Stop(w.t.Context(), postgres.Fast); err != nil {
		w.t.Fatal(err)
	}
	next, err := w.pg.Upgrade(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = next.Close() })
	w.arrive(next)
}

// distribution is a server of a build that has all programs, if there is one.
func distribution(t *testing.T, major int) *postgres.Server {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Options{Major: major, Distribution: true})
	if errors.Is(err, postgres.ErrNoBuild) {
		return postgres.Start(t, major)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// One slot name serves one database: the relay of another one says so.
func TestOneSlotNameInTwoDatabases(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.exec(`CREATE DATABASE other`)
	other := postgres.Connect(t, w.pg.DatabaseURL("other"))
	w.migrate(other)
	cfg := w.config()
	cfg.DatabaseURL = secret.New(w.pg.DatabaseURL("other"))
	second := w.start(cfg, &memory{})
	s := second.awaitRole(relay.RoleHalted, "slot_not_ours")
	if !strings.Contains(s.Error, "postgres") {
		t.Errorf("the owner is not named: %s", s.Error)
	}
	w.write(1)
	r.awaitValues("1")
	name := regexp.MustCompile(`OUTRIDER_NAME=(\w+)`).FindStringSubmatch(s.Hint)
	if name == nil {
		t.Fatalf("no other name is proposed: %q", s.Hint)
	}
	second.stop()
	cfg.Name = name[1]
	second = w.start(cfg, second.sink)
	second.awaitRole(relay.RoleLeader, "")
	insert(t, other, 2)
	second.awaitValues("2")
}

func insert(t *testing.T, db *pgx.Conn, n int) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'k', $1)`, fmt.Sprint(n)); err != nil {
		t.Fatal(err)
	}
}

// Whoever names a transaction id himself is corrected.
func TestForgedTransactionID(t *testing.T) {
	w := newWorld(t, 14)
	w.exec(`INSERT INTO outbox.events (topic, key, payload, tx) VALUES ('t', 'k', '1', '7'::xid8)`)
	if w.text(`SELECT (tx = xmin::text::xid8)::text FROM outbox.events`) != "true" {
		t.Error("the table took a transaction id that is not the writer's")
	}
	r := w.start(w.config(), &memory{})
	r.awaitValues("1")
}
