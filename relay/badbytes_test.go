package relay

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
	"github.com/outrider-cdc/outrider/relay/internal/replication/walsender"
)

// Positions of the good transaction that comes first in some cases, and of what
// the bad bytes would like to see confirmed.
const (
	goodFinal = 100
	goodEnd   = goodFinal + 1
	lure      = 1 << 40
)

func goodRow(id int) []byte { return wireInsert(id, uuidBytes, "orders", "k1", "T", `{"a":1}`, "", "") }

// goodTransaction is one whose end may be confirmed.
func goodTransaction() [][]byte {
	return [][]byte{wireBegin(goodFinal), wireRelation(7), goodRow(7), wireCommit(goodFinal)}
}

// faked runs a stream against a fake walsender that sends frames and then the
// lure: a keepalive that everything would be confirmed by. Positions become
// durable as soon as they are settled, as if the progress row were written in
// no time, so that nothing but the stream holds a confirmation back. It returns
// the highest position that was ever confirmed, also by the status that a
// session sends at its end, and how run ended.
func faked(t *testing.T, send func(s *walsender.Server)) (confirmed uint64, failure error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := walsender.New(t)
		conn, err := replication.Dial(t.Context(), replication.Config{URL: walsender.URL, Dial: server.Dial, WALSenderTimeout: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Start(t.Context(), "outrider", "outrider", false); err != nil {
			t.Fatal(err)
		}
		s := testStream(t, settling{})
		s.conn = conn
		ended := make(chan error, 1)
		go func() { ended <- s.run(t.Context()) }()
		send(server)
		server.Keepalive(lure, true)
		for running := true; running; {
			select {
			case failure = <-ended:
				running = false
			case <-time.After(time.Millisecond):
				s.relay.durable.Store(s.relay.settledLSN.Load())
			}
		}
		s.relay.durable.Store(s.relay.settledLSN.Load())
		if err := s.status(); err != nil {
			t.Logf("the last status did not go out: %v", err) // the server has closed
		}
		synctest.Wait()
		for _, status := range server.Statuses() {
			confirmed = max(confirmed, status.Flush, status.Apply)
		}
	})
	return confirmed, failure
}

// refused: the bytes themselves were the end, and not the silence that follows them.
func refused(err error) bool {
	return err != nil && !errors.Is(err, replication.ErrSilent) && !replication.IsTimeout(err)
}

// Bytes that no sound server sends end the session with an error, never a
// panic, and confirm nothing that was not confirmed before.
func TestBadBytes(t *testing.T) {
	row := goodRow(7)
	for name, bad := range map[string][][]byte{
		"truncated insert":          {wireBegin(200), wireRelation(7), row[:len(row)-3]},
		"insert with a byte more":   {wireBegin(200), wireRelation(7), append(goodRow(7), 0)},
		"insert of too few columns": {wireBegin(200), wireRelation(7), wireInsert(7, uuidBytes)},
		"insert before relation":    {wireBegin(200), goodRow(9)},
		"insert outside":            {wireRelation(7), goodRow(7)},
		"commit without begin":      {wireCommit(200)},
		"commit twice":              {wireBegin(200), wireCommit(200), wireCommit(200)},
		"commit of another":         {wireBegin(200), wireCommit(1 << 45)},
		"commit from elsewhere":     {wireBegin(200), wireCommit(199)},
		"commit without length":     {wireBegin(200), emptyCommit(200)},
		"begin twice":               {wireBegin(200), wireBegin(210)},
		"truncated begin":           {wireBegin(200)[:12]},
		"truncated commit":          {wireBegin(200), wireCommit(200)[:9]},
		"truncated relation":        {wireBegin(200), wireRelation(7)[:20]},
		"unknown kind":              {wireBegin(200), []byte("?")},
		"streamed transaction":      {[]byte("S\x00\x00\x00\x01\x01")},
		"prepared transaction":      {[]byte("b\x00\x00\x00\x01")},
		"empty":                     {{}},
		"garbage":                   {[]byte(strings.Repeat("\xff\x00garbage", 100))},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range [][][]byte{nil, goodTransaction()} {
				confirmed, err := faked(t, func(s *walsender.Server) {
					for _, m := range append(before, bad...) {
						s.WAL(0, m)
					}
				})
				if !refused(err) {
					t.Errorf("the session ended with %v, want an error", err)
				}
				limit := uint64(0)
				if before != nil {
					limit = goodEnd
				}
				if name == "commit twice" {
					limit = 201 // the first one was in order
				}
				if confirmed > limit {
					t.Errorf("confirmed up to %d, want %d at most", confirmed, limit)
				}
			}
		})
	}
}

// emptyCommit claims to end where it starts.
func emptyCommit(final int) []byte {
	b := wireCommit(final)
	copy(b[10:18], b[2:10])
	return b
}

// The same for bytes that are not even frames.
func TestBadFrames(t *testing.T) {
	for name, bad := range map[string]string{
		"negative length":  "d\xff\xff\xff\xff",
		"unknown message":  "q\x00\x00\x00\x04",
		"short keepalive":  "d\x00\x00\x00\x0ek\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"short XLogData":   "d\x00\x00\x00\x0ew\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"another protocol": "HTTP/1.1 400 Bad Request\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			confirmed, err := faked(t, func(s *walsender.Server) { s.Raw([]byte(bad)) })
			if !refused(err) || confirmed != 0 {
				t.Errorf("the session ended with %v and confirmed %d", err, confirmed)
			}
		})
	}
}

// What the tests above rest on: without bad bytes the good transaction is
// confirmed, and so is the lure; inside an open transaction it is not.
func TestGoodBytesAreConfirmed(t *testing.T) {
	whole := goodTransaction()
	for name, tt := range map[string]struct {
		frames [][]byte
		want   uint64
	}{
		"whole": {whole, lure},
		"open":  {whole[:len(whole)-1], 0},
	} {
		confirmed, err := faked(t, func(s *walsender.Server) {
			for _, m := range tt.frames {
				s.WAL(0, m)
			}
			s.Keepalive(lure, false)
			time.AfterFunc(time.Second, s.Close)
		})
		if err == nil || confirmed != tt.want {
			t.Errorf("%s: the session ended with %v and confirmed %d, want %d", name, err, confirmed, tt.want)
		}
	}
}
