package relay

import (
	"context"
	"encoding/binary"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-cdc/outrider/internal/secret"
)

// settling is a sink that has everything at once.
type settling struct{}

func (settling) Begin(context.Context, Source) (Checkpoint, error) { return Checkpoint{}, nil }
func (settling) Publish(m *Message)                                { m.Settle(nil) }
func (settling) Close() error                                      { return nil }

// testStream is a stream without a connection: frames are handed to it.
func testStream(t testing.TB, sink Sink) *stream {
	t.Helper()
	r, err := New(Config{
		Name: "test", DatabaseURL: secret.New("postgres://x@localhost/x"), Publication: "outrider", Table: "outbox.events", Schema: "outbox",
		ColumnID: "id", ColumnTopic: "topic", ColumnKey: "key", ColumnType: "type", ColumnPayload: "payload",
		ColumnPayloadBytes: "payload_bytes", ColumnHeaders: "headers",
		MaxInFlightBytes: 1 << 30, WALSenderTimeout: 3e9, ShutdownTimeout: 1e9,
	}, sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(r, nil, 1)
	s.source = []byte("1.1.outrider_test.1")
	r.ledger.startAnew(s.flight, 0)
	s.adopted = true
	return s
}

func u16(b []byte, v int) []byte { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func u32(b []byte, v int) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func u64(b []byte, v int) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func wireBegin(final int) []byte  { return u32(u64(u64([]byte{'B'}, final), 0), 1) }
func wireCommit(final int) []byte { return u64(u64(u64([]byte{'C', 0}, final), final+1), 0) }

func wireRelation(id int) []byte {
	rel := relation(nativeColumns[:]...)
	b := u32([]byte{'R'}, id)
	b = append(append(b, rel.Schema...), 0)
	b = append(append(b, rel.Table...), 0)
	b = u16(append(b, 'n'), len(rel.Columns))
	for _, c := range rel.Columns {
		b = append(append(append(b, 0), c.Name...), 0)
		b = u32(u32(b, int(c.TypeOID)), -1)
	}
	return b
}

func wireInsert(id int, values ...string) []byte {
	b := u16(append(u32([]byte{'I'}, id), 'N'), len(values))
	for _, v := range values {
		if v == "" {
			b = append(b, 'n')
			continue
		}
		b = append(u32(append(b, 'b'), len(v)), v...)
	}
	return b
}

func (s *stream) mustHandle(t testing.TB, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if err := s.handle(t.Context(), f); err != nil {
			t.Fatalf("frame %q: %v", f[0], err)
		}
	}
}

// From a frame in the connection's buffer to Publish a row costs two
// allocations: its bytes, and the message. Also with headers, and also when
// every row is a transaction of its own.
func TestRowAllocations(t *testing.T) {
	for name, headers := range map[string]string{"without headers": "", "with headers": "\x01{\"traceparent\": \"00-ab\"}"} {
		row := wireInsert(7, uuidBytes, "orders", "k1", "T", `{"a":1}`, "", headers)
		s := testStream(t, settling{})
		s.mustHandle(t, wireBegin(10), wireRelation(7), row)
		ctx := t.Context()
		if got := testing.AllocsPerRun(1000, func() {
			if err := s.handle(ctx, row); err != nil {
				t.Fatal(err)
			}
			s.ledger.advance()
		}); got > 2 {
			t.Errorf("%s: %v allocations a row in a long transaction, want 2 at most", name, got)
		}
		s.mustHandle(t, wireCommit(10))
		lsn := 12
		begin, commit := wireBegin(0), wireCommit(0)
		if got := testing.AllocsPerRun(1000, func() {
			lsn += 2
			binary.BigEndian.PutUint64(begin[1:], uint64(lsn))
			binary.BigEndian.PutUint64(commit[2:], uint64(lsn))
			binary.BigEndian.PutUint64(commit[10:], uint64(lsn+1))
			for _, f := range [][]byte{begin, row, commit} {
				if err := s.handle(ctx, f); err != nil {
					t.Fatal(err)
				}
			}
			s.ledger.advance()
		}); got > 2 {
			t.Errorf("%s: %v allocations a row in one-row transactions, want 2 at most", name, got)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	row := wireInsert(7, uuidBytes, "orders", "k1", "T", `{"a":1}`, "", "")
	s := testStream(b, settling{})
	s.mustHandle(b, wireBegin(10), wireRelation(7), row)
	ctx := b.Context()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := s.handle(ctx, row); err != nil {
			b.Fatal(err)
		}
		if n++; n%turnEvery == 0 {
			s.ledger.advance()
		}
	}
}
