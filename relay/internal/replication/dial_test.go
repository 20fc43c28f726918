package replication_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
	"github.com/outrider-cdc/outrider/relay/internal/replication/walsender"
)

func dial(t *testing.T, s *walsender.Server, url string) (*replication.Conn, error) {
	t.Helper()
	c, err := replication.Dial(t.Context(), replication.Config{
		URL: url, ApplicationName: "outrider/test", WALSenderTimeout: timeout, Dial: s.Dial,
	})
	if c != nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

func TestDial(t *testing.T) {
	s := walsender.New(t)
	c, err := dial(t, s, walsender.URL+"&options=-c%20work_mem%3D1MB")
	if err != nil {
		t.Fatal(err)
	}
	if c.BackendPID() != walsender.PID || c.ServerVersion() != 150018 || c.WALSenderTimeout() != timeout {
		t.Errorf("pid %d, version %d, timeout %s", c.BackendPID(), c.ServerVersion(), c.WALSenderTimeout())
	}
	for name, want := range map[string]string{
		"replication": "database", "application_name": "outrider/test", "options": "-c work_mem=1MB -c wal_sender_timeout=15000",
		"datestyle": "ISO", "timezone": "UTC", "client_encoding": "UTF8", "statement_timeout": "0", "lock_timeout": "0",
	} {
		if got := s.Startup()[name]; got != want {
			t.Errorf("startup parameter %s is %q, want %q", name, got, want)
		}
	}
	system, err := c.IdentifySystem(t.Context())
	if err != nil || system.ID != walsender.SystemID || system.Timeline != 1 || system.XLogPos != 0x1000 {
		t.Errorf("%+v, %v", system, err)
	}
	if h, err := c.TimelineHistory(t.Context(), 1); err != nil || h != "" {
		t.Errorf("history of the first timeline: %q, %v", h, err)
	}
}

// Replication starts where the slot stands, and names are quoted as the
// identifiers inside a literal that they are.
func TestStartCommand(t *testing.T) {
	s := walsender.New(t)
	c, err := dial(t, s, walsender.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "Upper", "a b", `a";`, "a'", strings.Repeat("a", 64)} {
		if err := c.Start(t.Context(), name, "p", false); err == nil {
			t.Errorf("slot name %q was taken", name)
		}
		if _, err := c.CreateSlot(t.Context(), name, false); err == nil {
			t.Errorf("slot name %q was created", name)
		}
		if err := c.DropSlot(t.Context(), name); err == nil {
			t.Errorf("slot name %q was dropped", name)
		}
	}
	if got := s.Started(); got != "" {
		t.Fatalf("sent %s", got)
	}
	if err := c.Start(t.Context(), "slot_1", `it's "My" pub`, true); err != nil {
		t.Fatal(err)
	}
	const want = `START_REPLICATION SLOT slot_1 LOGICAL 0/0 (proto_version '1', publication_names '"it''s ""My"" pub"', binary 'true', messages 'true')`
	if got := strings.TrimSpace(s.Started()); got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
}

func TestDialTimeouts(t *testing.T) {
	for said, want := range map[string]time.Duration{
		"1min": time.Minute, "15s": 15 * time.Second, "1500ms": 1500 * time.Millisecond, "1h": time.Hour, "1d": 24 * time.Hour, "250": 250 * time.Millisecond,
	} {
		s := walsender.New(t)
		s.Answer("SHOW wal_sender_timeout", said)
		c, err := dial(t, s, walsender.URL)
		if err != nil {
			t.Errorf("%s: %v", said, err)
		} else if c.WALSenderTimeout() != want {
			t.Errorf("%s is read as %s", said, c.WALSenderTimeout())
		}
	}
	for _, said := range []string{"0", "0ms"} {
		s := walsender.New(t)
		s.Answer("SHOW wal_sender_timeout", said)
		if _, err := dial(t, s, walsender.URL); !errors.Is(err, replication.ErrNoTimeout) {
			t.Errorf("%s: %v, want ErrNoTimeout", said, err)
		}
	}
	for _, said := range []string{"", "s", "-1", "5 s", "99999999999d", "9999999999999999999999"} {
		s := walsender.New(t)
		s.Answer("SHOW wal_sender_timeout", said)
		if c, err := dial(t, s, walsender.URL); err == nil || errors.Is(err, replication.ErrNoTimeout) {
			t.Errorf("%q: %v, %v, want an error", said, c, err)
		}
	}
}

func TestDialPooler(t *testing.T) {
	for code, message := range map[string]string{
		"08P01": "unsupported startup parameter in options: wal_sender_timeout", // PgBouncer
		"0A000": "Feature not supported: RDS Proxy currently doesn't support command-line options.",
	} {
		s := walsender.New(t)
		s.Refuse(code, message)
		_, err := dial(t, s, walsender.URL)
		if !replication.IsPooler(err) || !isCode(err, code) || !strings.Contains(err.Error(), "pooler") {
			t.Errorf("%v is no pooler", err)
		}
	}
	// The same code behind the handshake: START_REPLICATION on a standby that still recovers.
	if replication.IsPooler(&pgconn.PgError{Code: "0A000"}) {
		t.Error("an error that Dial did not return is a pooler")
	}
	s := walsender.New(t)
	s.Refuse("28P01", "password authentication failed")
	if _, err := dial(t, s, walsender.URL); err == nil || replication.IsPooler(err) {
		t.Errorf("%v is a pooler", err)
	}
	if replication.IsPooler(nil) {
		t.Error("no error is a pooler")
	}
}

// What Dial says about an address holds nothing of it: there may be a password in it.
func TestDialBadAddress(t *testing.T) {
	_, err := dial(t, walsender.New(t), "postgres://u:hunter2@[::1/x?sslmode=maybe")
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "::1") {
		t.Error(err)
	}
}

// A server that hangs in the handshake is left when the context ends.
func TestDialHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := walsender.New(t)
		s.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := replication.Dial(ctx, replication.Config{URL: walsender.URL, Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			c, err := s.Dial(ctx, n, a)
			s.Freeze()
			return c, err
		}, WALSenderTimeout: timeout})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

// A gigabyte announced in the handshake costs nothing either.
func TestDialAnnouncedIsNotAllocated(t *testing.T) {
	rogue := func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer func() { _ = server.Close() }()
			if _, err := pgproto3.NewBackend(server, io.Discard).ReceiveStartupMessage(); err != nil {
				return
			}
			_, _ = server.Write([]byte("S\x3f\xff\xff\xffclient"))
		}()
		return client, nil
	}
	got := allocated(func() {
		if _, err := replication.Dial(t.Context(), replication.Config{URL: walsender.URL, Dial: rogue, WALSenderTimeout: timeout}); err == nil {
			t.Error("no error")
		}
	})
	if got > 4<<20 {
		t.Errorf("%d bytes allocated", got)
	}
}
