package replication_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
	"github.com/outrider-cdc/outrider/relay/internal/replication/walsender"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is the fake's wal_sender_timeout.
const timeout = 15 * time.Second

// stream is a connection to a fake after START_REPLICATION. May be used inside
// a bubble and outside.
func stream(t testing.TB) (*walsender.Server, *replication.Conn) {
	t.Helper()
	s := walsender.New(t)
	return s, start(t, s)
}

func start(t testing.TB, s *walsender.Server) *replication.Conn {
	t.Helper()
	c, err := replication.Dial(t.Context(), replication.Config{URL: walsender.URL, Dial: s.Dial, WALSenderTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Start(t.Context(), "slot", "publication", false); err != nil {
		t.Fatal(err)
	}
	return c
}

// bubble runs a test with a fake in fake time.
func bubble(t *testing.T, test func(t *testing.T, s *walsender.Server, c *replication.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, c := stream(t)
		test(t, s, c)
	})
}

// turn is one round of a caller that does nothing but listen.
func turn(c *replication.Conn, write, flush replication.LSN) (replication.Frame, error) {
	if err := c.Tick(write, flush, true); err != nil {
		return replication.Frame{}, err
	}
	if err := c.SetReadDeadline(c.NextTick()); err != nil {
		return replication.Frame{}, err
	}
	return c.Receive()
}

// listen turns until an error that is no timeout, or until d has passed, and
// answers reply requests if the server is to be alive.
func listen(s *walsender.Server, c *replication.Conn, d time.Duration, alive bool) error {
	answered := 0
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := turn(c, 1, 0); err != nil && !replication.IsTimeout(err) {
			return err
		}
		synctest.Wait()
		if all := s.Statuses(); alive && len(all) > answered {
			if all[len(all)-1].Reply {
				s.Keepalive(1, false)
			}
			answered = len(all)
		}
	}
	return nil
}

// A server that is idle but well is asked, and keeps the connection; it hears
// of us at least each third of its timeout.
func TestStatusCadence(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		begin := time.Now()
		if err := listen(s, c, 10*timeout, true); err != nil {
			t.Fatal(err)
		}
		last, asked := begin, 0
		for _, status := range s.Statuses() {
			if gap := status.At.Sub(last); gap > timeout/3 {
				t.Errorf("%s without a status, want %s at most", gap, timeout/3)
			}
			if last = status.At; status.Reply {
				asked++
			}
			if want := uint64(status.At.UnixMicro() - 946_684_800_000_000); status.Clock != want {
				t.Errorf("clock %d, want %d", status.Clock, want)
			}
		}
		if asked < 10 || asked > 20 {
			t.Errorf("asked for %d replies in ten timeouts, want one or two in each", asked)
		}
	})
}

func TestSilentServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		begin := time.Now()
		err := listen(s, c, 10*timeout, false)
		if !errors.Is(err, replication.ErrSilent) {
			t.Fatalf("%v, want ErrSilent", err)
		}
		if took := time.Since(begin); took != timeout {
			t.Errorf("noticed after %s, want %s", took, timeout)
		}
		var asked []time.Duration
		for _, status := range s.Statuses() {
			if status.Reply {
				asked = append(asked, status.At.Sub(begin))
			}
		}
		if len(asked) != 1 || asked[0] != timeout/2 {
			t.Errorf("asked for a reply at %v, want once, at %s", asked, timeout/2)
		}
	})
}

// While the caller does not read, the server's keepalives wait in the socket:
// that is no silence, also not at the first look afterwards.
func TestUnreadIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		begin := time.Now()
		for time.Since(begin) < 4*timeout {
			if err := c.Tick(1, 0, false); err != nil {
				t.Fatal(err)
			}
			<-time.After(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(s.Statuses()); n < 12 {
			t.Errorf("%d statuses in four timeouts, want 12 at least", n)
		}
		for _, status := range s.Statuses() {
			if status.Reply {
				t.Error("asked for a reply that nobody would read")
			}
		}
		again := time.Now()
		if err := listen(s, c, 2*timeout, false); !errors.Is(err, replication.ErrSilent) {
			t.Fatalf("%v, want ErrSilent", err)
		}
		if took := time.Since(again); took < timeout-100*time.Millisecond || took > timeout {
			t.Errorf("silent after %s of reading, want %s", took, timeout)
		}
	})
}

// A status says what it was given, and a flush of 0 is neither filled in from
// write nor from what was said before.
func TestStatusPositions(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		for _, p := range [][2]replication.LSN{{100, 90}, {200, 0}, {0, 0}, {1 << 63, 1<<63 - 1}} {
			if err := c.Status(p[0], p[1], true); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			all := s.Statuses()
			got := all[len(all)-1]
			if got.Write != uint64(p[0]) || got.Flush != uint64(p[1]) || got.Apply != uint64(p[1]) || !got.Reply {
				t.Errorf("sent %d, arrived as %+v", p, got)
			}
		}
	})
}

// A message that comes in pieces with deadlines between them arrives whole,
// whether it fits the buffer or not, and what follows it too.
func TestDeadlineInsideMessage(t *testing.T) {
	for name, size := range map[string]int{"in the buffer": 1000, "beyond the buffer": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
				payload := make([]byte, size)
				for i := range payload {
					payload[i] = byte(i * 7)
				}
				message := walsender.XLogData(42, payload)
				cuts, from := []int{1, 4, 5, 6, 29, 30, size / 2, size}, 0
				for _, cut := range cuts {
					s.Raw(message[from:cut])
					from = cut
					if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
						t.Fatal(err)
					}
					if _, err := c.Receive(); !replication.IsTimeout(err) {
						t.Fatalf("%d bytes of the message: %v, want a timeout", cut, err)
					}
				}
				s.Raw(message[from:])
				s.Keepalive(43, true)
				if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					t.Fatal(err)
				}
				f, err := c.Receive()
				if err != nil || f.Kind != replication.FrameWAL || f.WALEnd != 42 || !bytes.Equal(f.Data, payload) {
					t.Fatalf("%v, %d bytes, %v", f.Kind, len(f.Data), err)
				}
				f, err = c.Receive()
				if err != nil || f.Kind != replication.FrameKeepalive || f.WALEnd != 43 || !f.ReplyRequested {
					t.Fatalf("behind it: %+v, %v", f, err)
				}
			})
		})
	}
}

// A message that takes longer than the timeout is no silence as long as some of
// it comes; when it stops coming, it is.
func TestLongMessageOverSlowLine(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		message := walsender.XLogData(42, make([]byte, 1<<20))
		const pieces = 64
		for i := range pieces - 1 {
			s.Raw(message[i*len(message)/pieces : (i+1)*len(message)/pieces])
			if err := listen(s, c, timeout/4, false); err != nil {
				t.Fatalf("after %d of %d pieces: %v", i+1, pieces, err)
			}
		}
		stalled := time.Now()
		if err := listen(s, c, 2*timeout, false); !errors.Is(err, replication.ErrSilent) {
			t.Fatalf("%v, want ErrSilent", err)
		}
		if took := time.Since(stalled); took > timeout {
			t.Errorf("noticed after %s, want %s at most", took, timeout)
		}
	})
}

// Interrupt wakes a Receive that waits for ever, and the connection is as good as before.
func TestInterrupt(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, c.Interrupt)
		if _, err := c.Receive(); !replication.IsTimeout(err) {
			t.Fatalf("%v, want a timeout", err)
		}
		s.Keepalive(5, false)
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if f, err := c.Receive(); err != nil || f.WALEnd != 5 {
			t.Fatalf("%+v, %v", f, err)
		}
	})
}

func TestEnd(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		s.WAL(7, []byte("unread"))
		if err := c.Status(7, 7, false); err != nil {
			t.Fatal(err)
		}
		if err := c.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := s.Statuses()
		if !s.Ended() || len(all) != 1 || all[0].Flush != 7 {
			t.Errorf("the server was told %v, %+v", s.Ended(), all)
		}
	})
}

// A server that hangs does not keep End.
func TestEndOfHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := walsender.New(t)
		c := start(t, s)
		s.Freeze()
		begin := time.Now()
		if err := c.End(t.Context()); !replication.IsTimeout(err) {
			t.Errorf("%v, want a timeout", err)
		}
		if took := time.Since(begin); took > timeout {
			t.Errorf("End took %s", took)
		}
		// Its peer does not read any more. Half a status is no deadline after
		// which one could go on.
		if err := c.Status(1, 1, false); !errors.Is(err, replication.ErrSilent) || replication.IsTimeout(err) {
			t.Errorf("a status that nobody takes: %v, want ErrSilent", err)
		}
	})
}

func TestEndStopsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		s.Freeze()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		if err := c.End(ctx); err == nil {
			t.Error("a server that hangs has ended the stream")
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("End took %s, its context 1s", took)
		}
	})
}

// A server that dies while it is told of the end says why.
func TestEndOfDyingServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		s.WAL(7, []byte("unread"))
		s.Raw(fatal(t, "57P01"))
		if err := c.End(t.Context()); !isCode(err, "57P01") {
			t.Errorf("%v, want 57P01", err)
		}
	})
}

func fatal(t *testing.T, code string) []byte {
	t.Helper()
	b, err := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLastHeard(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		begin := time.Now()
		<-time.After(time.Second)
		if got := c.LastHeard().Sub(begin); got != 0 {
			t.Errorf("heard %s after the start, but nothing was sent", got)
		}
		s.Keepalive(1, false)
		if _, err := turn(c, 1, 0); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		if got := c.LastHeard().Sub(begin); got != time.Second {
			t.Errorf("heard %s after the start, want 1s", got)
		}
	})
}

// Whoever works through what one read has brought does not listen meanwhile:
// a server that could not be heard is not silent. One that stalls afterwards is.
func TestSlowReaderIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T, s *walsender.Server, c *replication.Conn) {
		const frames = 100
		s.Raw(bytes.Repeat(walsender.XLogData(1, []byte("row")), frames)) // one write, one read
		for n := range frames {
			if f, err := turn(c, 1, 0); err != nil || f.Kind != replication.FrameWAL {
				t.Fatalf("frame %d: %+v, %v", n, f, err)
			}
			<-time.After(timeout / 10)
		}
		stalled := time.Now()
		if err := listen(s, c, 2*timeout, false); !errors.Is(err, replication.ErrSilent) {
			t.Fatalf("%v, want ErrSilent", err)
		}
		if took := time.Since(stalled); took > timeout {
			t.Errorf("noticed after %s, want %s at most", took, timeout)
		}
	})
}
