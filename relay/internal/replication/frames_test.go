package replication_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
	"github.com/outrider-cdc/outrider/relay/internal/replication/walsender"
)

func parameterStatus(t testing.TB) []byte {
	t.Helper()
	b, err := (&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReceive(t *testing.T) {
	s, c := stream(t)
	s.Keepalive(9, true)
	s.Raw(parameterStatus(t))
	s.WAL(10, []byte("Bbody"))
	s.WAL(0, nil)
	s.Notice(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "01000", Message: "words", Detail: "more", Routine: "LoadPublications"})
	s.Keepalive(11, false)
	for i, want := range []replication.Frame{
		{Kind: replication.FrameKeepalive, WALEnd: 9, ReplyRequested: true},
		{Kind: replication.FrameWAL, WALEnd: 10, Data: []byte("Bbody")},
		{Kind: replication.FrameWAL},
		{Kind: replication.FrameNotice},
		{Kind: replication.FrameKeepalive, WALEnd: 11},
	} {
		f, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != want.Kind || f.WALEnd != want.WALEnd || f.ReplyRequested != want.ReplyRequested || !bytes.Equal(f.Data, want.Data) {
			t.Errorf("frame %d is %+v, want %+v", i, f, want)
		}
		if f.Kind == replication.FrameNotice {
			if n := f.Notice; n == nil || n.Code != "01000" || n.Severity != "WARNING" || n.Message != "words" || n.Detail != "more" || n.Routine != "LoadPublications" {
				t.Errorf("notice %+v", n)
			}
		}
	}
}

// Any number of messages that say nothing is skipped, on one stack frame.
func TestReceiveManyParameterStatuses(t *testing.T) {
	s, c := stream(t)
	s.Raw(bytes.Repeat(parameterStatus(t), 200_000))
	s.Keepalive(1, false)
	if f, err := c.Receive(); err != nil || f.WALEnd != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
}

func TestReceiveEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		send func(s *walsender.Server)
		is   func(error) bool
	}{
		"error": {func(s *walsender.Server) { s.Error("57P01", "terminating") }, func(err error) bool {
			pe, ok := errors.AsType[*pgconn.PgError](err)
			return ok && pe.Code == "57P01" && pe.Message == "terminating"
		}},
		"in order":        {(*walsender.Server).End, func(err error) bool { return errors.Is(err, replication.ErrEnded) }},
		"closed":          {(*walsender.Server).Close, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"closed in a row": {func(s *walsender.Server) { s.Raw([]byte("d\x00\x00\x01\x00w")); s.Close() }, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"closed in a long row": {func(s *walsender.Server) { s.Raw([]byte("d\x10\x00\x00\x00w")); s.Close() }, func(err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := stream(t)
			tt.send(s)
			if f, err := c.Receive(); !tt.is(err) || replication.IsTimeout(err) {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

func TestReceiveViolations(t *testing.T) {
	for name, bytes := range map[string]string{
		"length 0":                    "d\x00\x00\x00\x00",
		"length 3, less than itself":  "d\x00\x00\x00\x03",
		"negative length":             "d\xff\xff\xff\xff",
		"the most negative length":    "d\x80\x00\x00\x00",
		"longer than Postgres builds": "d\x7f\xff\xff\xff",
		"empty copy data":             "d\x00\x00\x00\x04",
		"unknown copy data":           "d\x00\x00\x00\x05x",
		"XLogData without its head":   "d\x00\x00\x00\x1cw" + strings.Repeat("\x00", 23),
		"keepalive too short":         "d\x00\x00\x00\x15k" + strings.Repeat("\x00", 16),
		"keepalive too long":          "d\x00\x00\x00\x17k" + strings.Repeat("\x00", 18),
		"unknown type":                "q\x00\x00\x00\x04",
		"row data":                    "D\x00\x00\x00\x06\x00\x00",
		"garbage":                     "HTTP/1.1 400 Bad Request\r\n\r\n",
		"error that does not end":     "E\x00\x00\x00\x06Sx",
		"notice that does not end":    "N\x00\x00\x00\x06Sx",
	} {
		t.Run(name, func(t *testing.T) {
			s, c := stream(t)
			s.Raw([]byte(bytes))
			s.Close()
			f, err := c.Receive()
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "protocol violation") {
				t.Errorf("%+v, %v, want a protocol violation", f, err)
			}
		})
	}
}

// allocated is how many bytes run allocates.
func allocated(run func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A gigabyte that is announced costs nothing before it comes.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	s, c := stream(t)
	s.Raw(append([]byte("d\x40\x00\x00\x00w"), make([]byte, 1<<20)...))
	s.Close()
	got := allocated(func() {
		if _, err := c.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	if got > 8<<20 {
		t.Errorf("%d bytes allocated for the first MiB of a message of a GiB", got)
	}
}

// Frames in the buffer are handed out without any allocation.
func TestReceiveAllocations(t *testing.T) {
	s, c := stream(t)
	const runs = 10_000
	frames := append(walsender.XLogData(1, make([]byte, 200)), walsender.CopyData(append([]byte{'k'}, make([]byte, 17)...))...)
	s.Raw(bytes.Repeat(frames, runs+1))
	if got := testing.AllocsPerRun(runs, func() {
		for range 2 {
			if _, err := c.Receive(); err != nil {
				t.Fatal(err)
			}
		}
	}); got != 0 {
		t.Errorf("%v allocations for two frames, want none", got)
	}
}

// framesOf cuts all XLogData out of whole bytes, which needs no buffer.
func framesOf(data []byte) (bodies [][]byte) {
	for len(data) >= 5 {
		length := int64(binary.BigEndian.Uint32(data[1:])) + 1
		if length < 5 || length > int64(len(data)) {
			break
		}
		if length >= 5+25 && data[0] == 'd' && data[5] == 'w' {
			bodies = append(bodies, data[5:length])
		}
		data = data[length:]
	}
	return bodies
}

// Whatever comes after CopyBothResponse ends in an error or in frames: no
// panic, no frame that was not sent, and no memory for what never came.
// Run it with -fuzzminimizetime=1x: the long seed takes minutes to minimize.
func FuzzReceive(f *testing.F) {
	var whole []byte
	for _, seed := range [][]byte{
		walsender.XLogData(7, []byte("Ibody")), walsender.XLogData(0, nil),
		walsender.CopyData(append([]byte{'k'}, make([]byte, 17)...)), parameterStatus(f),
		[]byte("E\x00\x00\x00\x0dC57P01\x00M\x00\x00"), []byte("N\x00\x00\x00\x0dC01000\x00M\x00\x00"), []byte("c\x00\x00\x00\x04"),
		[]byte("d\x40\x00\x00\x00w"), []byte("d\xff\xff\xff\xff"), walsender.XLogData(8, make([]byte, 300<<10)),
	} {
		f.Add(seed)
		whole = append(whole, seed...)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, c := stream(t)
		s.Raw(data)
		s.Close()
		want := framesOf(data)
		got := allocated(func() {
			for n := 0; ; {
				frame, err := c.Receive()
				if err != nil {
					return
				}
				if frame.Kind != replication.FrameWAL {
					continue
				}
				if n == len(want) || !bytes.Equal(frame.Data, want[n][25:]) || uint64(frame.WALEnd) != binary.BigEndian.Uint64(want[n][9:]) {
					t.Fatalf("frame %d at %s with %d bytes was not sent", n, frame.WALEnd, len(frame.Data))
				}
				n++
			}
		})
		if limit := uint64(2<<20 + 64*len(data)); got > limit {
			t.Errorf("%d bytes allocated for %d", got, len(data))
		}
	})
}
