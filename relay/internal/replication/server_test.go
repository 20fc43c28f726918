package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// patience is how long a real server may take for anything.
const patience = 20 * time.Second

// bench is a real server with a table and its publication.
type bench struct {
	t  *testing.T
	pg *postgres.Server
	db *pgx.Conn
}

func newBench(t *testing.T, major int) *bench {
	t.Helper()
	b := &bench{t: t, pg: postgres.Start(t, major)}
	db, err := pgx.Connect(t.Context(), b.pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	b.db = db
	b.exec(`CREATE TABLE "It's" (id int8 PRIMARY KEY)`)
	b.exec(`CREATE PUBLICATION "It's ""P""" FOR TABLE "It's"`)
	return b
}

func (b *bench) exec(sql string) {
	b.t.Helper()
	if _, err := b.db.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) text(sql string) (s string) {
	b.t.Helper()
	if err := b.db.QueryRow(b.t.Context(), sql).Scan(&s); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func (b *bench) dial() *replication.Conn {
	b.t.Helper()
	c, err := replication.Dial(b.t.Context(), replication.Config{URL: b.pg.URL(), ApplicationName: "outrider/test", WALSenderTimeout: timeout})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// stream dials and starts from the slot.
func (b *bench) stream() *replication.Conn {
	b.t.Helper()
	c := b.dial()
	if err := c.Start(b.t.Context(), "slot", `It's "P"`, false); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// until receives, with statuses that confirm nothing, until found says so or the stream ends.
func (b *bench) until(c *replication.Conn, found func(replication.Frame) bool) error {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		f, err := turn(c, 0, 0)
		if replication.IsTimeout(err) {
			continue
		}
		if err != nil || found(f) {
			return err
		}
	}
	b.t.Fatal("waited too long for the server")
	return nil
}

// commit receives until the end of a transaction and returns where it ends.
func (b *bench) commit(c *replication.Conn) (end replication.LSN) {
	b.t.Helper()
	if err := b.until(c, func(f replication.Frame) bool {
		end = f.WALEnd
		return f.Kind == replication.FrameWAL && f.Data[0] == 'C'
	}); err != nil {
		b.t.Fatal(err)
	}
	return end
}

func (b *bench) confirmed() string {
	b.t.Helper()
	return b.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'slot'`)
}

// On every major: from the handshake to a confirmed position.
func TestServers(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			b := newBench(t, major)
			b.exec(`INSERT INTO "It's" VALUES (1)`)
			c := b.dial()
			if got := c.ServerVersion() / 10000; got != major {
				t.Errorf("version %d of a server %d", c.ServerVersion(), major)
			}
			if c.WALSenderTimeout() != timeout {
				t.Errorf("the session's timeout is %s, want %s", c.WALSenderTimeout(), timeout)
			}
			if pid := b.text(`SELECT pid::text FROM pg_stat_activity WHERE application_name = 'outrider/test'`); pid != fmt.Sprint(c.BackendPID()) {
				t.Errorf("pid %d, the server says %s", c.BackendPID(), pid)
			}
			system, err := c.IdentifySystem(t.Context())
			if err != nil || system.ID != b.text(`SELECT system_identifier::text FROM pg_control_system()`) || system.Timeline != 1 {
				t.Errorf("%+v, %v", system, err)
			}
			b.slotAndSnapshot(c)
			c.Close()
			b.positions()
			b.killed()
			b.stopped()
		})
	}
}

// slotAndSnapshot creates the slot; its snapshot sees what was there, and not what comes later.
func (b *bench) slotAndSnapshot(c *replication.Conn) {
	b.t.Helper()
	created, err := c.CreateSlot(b.t.Context(), "slot", true)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := b.confirmed(); got != created.ConsistentPoint.String() {
		b.t.Errorf("consistent point %s, the slot stands at %s", created.ConsistentPoint, got)
	}
	b.exec(`INSERT INTO "It's" VALUES (2)`)
	b.exec("BEGIN ISOLATION LEVEL REPEATABLE READ")
	b.exec("SET TRANSACTION SNAPSHOT '" + created.Snapshot + "'")
	if got := b.text(`SELECT string_agg(id::text, ',') FROM "It's"`); got != "1" {
		b.t.Errorf("the snapshot sees rows %s, want 1", got)
	}
	b.exec("COMMIT")
	if b.pg.Major() >= 17 && b.text("SELECT failover::text FROM pg_replication_slots") != "true" {
		b.t.Error("no failover slot")
	}
	if _, err := c.CreateSlot(b.t.Context(), "slot", false); !isCode(err, "42710") {
		b.t.Errorf("a second slot of the name: %v, want 42710", err)
	}
}

// positions: a flush of 0 moves nothing, any other one moves the slot there.
func (b *bench) positions() {
	b.t.Helper()
	c := b.stream()
	defer c.Close()
	before := b.confirmed()
	end := b.commit(c) // of row 2
	if err := c.Status(end, 0, false); err != nil {
		b.t.Fatal(err)
	}
	b.wait("the status arrived", "SELECT bool_or(write_lsn = '"+end.String()+"')::text FROM pg_stat_replication")
	if got := b.confirmed(); got != before {
		b.t.Errorf("a status with flush 0 moved the slot from %s to %s", before, got)
	}
	if err := c.Status(end, end, false); err != nil {
		b.t.Fatal(err)
	}
	if err := c.End(b.t.Context()); err != nil { // every status was taken in
		b.t.Fatal(err)
	}
	if got := b.confirmed(); got != end.String() {
		b.t.Errorf("the slot stands at %s, want %s", got, end)
	}
}

func (b *bench) killed() {
	b.t.Helper()
	b.released()
	c := b.stream()
	defer c.Close()
	b.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.BackendPID()))
	if err := b.until(c, func(replication.Frame) bool { return false }); !isCode(err, "57P01") {
		b.t.Errorf("killed: %v, want 57P01", err)
	}
}

// stopped: a fast stop comes to its end while we go on answering with flush 0, and the stream says so.
func (b *bench) stopped() {
	b.t.Helper()
	b.pg.Private(b.t)
	b.released()
	b.exec(`INSERT INTO "It's" VALUES (3)`)
	c := b.stream()
	defer c.Close()
	end := b.commit(c)
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- b.pg.Stop(ctx, postgres.Fast) }()
	err := b.until(c, func(f replication.Frame) bool {
		if f.ReplyRequested { // nothing of row 3 is confirmed, yet the server may go
			end = max(end, f.WALEnd)
			if err := c.Status(end, 0, false); err != nil {
				b.t.Error(err)
			}
		}
		return false
	})
	if !errors.Is(err, replication.ErrEnded) && !isCode(err, "57P01") && !errors.Is(err, io.ErrUnexpectedEOF) {
		b.t.Errorf("fast stop: %v, want the end of the stream", err)
	}
	c.Close()
	if err := <-stopped; err != nil {
		b.t.Errorf("fast stop: %v", err)
	}
}

// released waits until nobody holds the slot.
func (b *bench) released() {
	b.t.Helper()
	b.wait("the last walsender is gone", "SELECT (count(*) = 0)::text FROM pg_stat_replication")
}

// wait asks until the answer is true; between two questions the server waits, not the test.
func (b *bench) wait(what, sql string) {
	b.t.Helper()
	for end := time.Now().Add(patience); b.text("SELECT coalesce(("+sql+"), 'false')") != "true"; b.exec("SELECT pg_sleep(0.01)") {
		if time.Now().After(end) {
			b.t.Fatalf("waited too long until %s", what)
		}
	}
}

func isCode(err error, code string) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == code
}

// A slot that is not there, or held, is told by START_REPLICATION.
func TestStartRefused(t *testing.T) {
	b := newBench(t, 0)
	c := b.dial()
	if err := c.Start(t.Context(), "slot", "p", false); !isCode(err, "42704") {
		t.Errorf("no slot: %v, want 42704", err)
	}
	c = b.dial()
	if _, err := c.CreateSlot(t.Context(), "slot", false); err != nil {
		t.Fatal(err)
	}
	b.stream()
	if err := c.Start(t.Context(), "slot", "p", false); !isCode(err, "55006") {
		t.Errorf("held slot: %v, want 55006", err)
	}
}

// The timeout that Dial asks for is the session's, also when it is none.
func TestDialWithoutTimeout(t *testing.T) {
	b := newBench(t, 0)
	c, err := replication.Dial(t.Context(), replication.Config{URL: b.pg.URL(), WALSenderTimeout: 0})
	if !errors.Is(err, replication.ErrNoTimeout) {
		t.Errorf("%v, %v, want ErrNoTimeout", c, err)
	}
}
