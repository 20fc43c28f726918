package stdout_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/sinktest"
	"github.com/outrider-cdc/outrider/sinks/stdout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a writer that keeps what it took, and can be told to stall or to refuse.
type pipe struct {
	mu      sync.Mutex
	changed *sync.Cond
	stalled bool
	refuse  int // the n-th write from now fails, having taken the first bytes
	took    bytes.Buffer
	started chan struct{} // gets a value when a write meets the stall
}

func newPipe() *pipe {
	p := &pipe{started: make(chan struct{}, 1)}
	p.changed = sync.NewCond(&p.mu)
	return p
}

var errPipe = errors.New("broken pipe")

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled {
		select {
		case p.started <- struct{}{}:
		default:
		}
		p.changed.Wait()
	}
	if p.refuse > 0 {
		if p.refuse--; p.refuse == 0 {
			n := min(10, len(b)-1)
			p.took.Write(b[:n])
			return n, errPipe
		}
	}
	return p.took.Write(b)
}

func (p *pipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.changed.Broadcast()
}

func (p *pipe) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took.String()
}

// line is what a reader of the lines sees.
type line struct {
	Topic       string
	Key         *string
	KeyBase64   *string `json:"key_base64"`
	Value       *string
	ValueBase64 *string `json:"value_base64"`
	Headers     map[string]any
	Position    string
	CommittedAt time.Time `json:"committed_at"`
}

func TestSinkBehaves(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{Open: func(tb testing.TB) *sinktest.Rig {
		tb.Helper()
		p := newPipe()
		tb.Cleanup(func() { p.set(func() { p.stalled = false }) })
		return &sinktest.Rig{
			Sink: stdout.New(p), Topics: []string{"a", "b"},
			Landed: func(context.Context) ([]sinktest.Record, error) { return landed(p.text()), nil },
			Refuse: func(n int) { p.set(func() { p.refuse = n }) },
			Stall: func() func() {
				p.set(func() { p.stalled = true })
				return func() { p.set(func() { p.stalled = false }) }
			},
		}
	}})
}

// landed reads lines; what a failed write left of one is passed over, as a reader would.
func landed(text string) []sinktest.Record {
	var records []sinktest.Record
	for l := range strings.Lines(text) {
		var got line
		if json.Unmarshal([]byte(l), &got) != nil {
			continue
		}
		r := sinktest.Record{Topic: got.Topic, Value: []byte(*got.Value)}
		if got.Key != nil {
			r.Key = []byte(*got.Key)
		}
		records = append(records, r)
	}
	return records
}

func begin(t *testing.T, s *stdout.Sink) {
	t.Helper()
	if _, err := s.Begin(t.Context(), relay.Source{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
}

// publish publishes m and waits for what it settles with.
func publish(t *testing.T, s *stdout.Sink, m *relay.Message, own ...relay.Header) error {
	t.Helper()
	settled := make(chan error, 1)
	s.Publish(relay.NewMessage(m, own, func(err error) { settled <- err }))
	select {
	case err := <-settled:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("not settled")
		return nil
	}
}

func TestLine(t *testing.T) {
	p := newPipe()
	s := stdout.New(p)
	begin(t, s)
	committed := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	const text = "a \"quoted\" \\ back\nslash\t\r\x00\x1f\x7f </script> \u2028 ü 🦉"
	err := publish(t, s, &relay.Message{
		ID: []byte("id-1"), Topic: "orders", Key: []byte(text), Value: []byte(text), Type: []byte("t"),
		Position: relay.Position{LSN: 0x1234, Ordinal: 7}, CommittedAt: committed,
	}, relay.Header{Key: "null"}, relay.Header{Key: text, Value: []byte(text)}, relay.Header{Key: "bytes", Value: []byte{0xff, 0}})
	if err != nil {
		t.Fatal(err)
	}
	var got line
	if err := json.Unmarshal([]byte(p.text()), &got); err != nil {
		t.Fatalf("%v: %s", err, p.text())
	}
	if *got.Key != text || *got.Value != text || got.Topic != "orders" {
		t.Errorf("key, value or topic differ: %s", p.text())
	}
	if got.Position != "0000000000001234.0000000000000007" || !got.CommittedAt.Equal(committed) {
		t.Errorf("position %q, committed at %v", got.Position, got.CommittedAt)
	}
	h := got.Headers
	if h["id"] != "id-1" || h["type"] != "t" || h[text] != text || h["outrider-source"] == nil {
		t.Errorf("headers %v", h)
	}
	if v, ok := h["null"]; v != nil || !ok {
		t.Errorf("null header is %v", v)
	}
	if b, _ := h["bytes"].(map[string]any); b["base64"] != base64.StdEncoding.EncodeToString([]byte{0xff, 0}) {
		t.Errorf("header of bytes is %v", h["bytes"])
	}
}

func TestMissingAndBinary(t *testing.T) {
	p := newPipe()
	s := stdout.New(p)
	begin(t, s)
	if err := errors.Join(
		publish(t, s, &relay.Message{Topic: "a"}),
		publish(t, s, &relay.Message{Topic: "a", Key: []byte{}, Value: []byte{}}),
		publish(t, s, &relay.Message{Topic: "a", Key: []byte{0xc0}, Value: []byte{0xed, 0xa0, 0x80}}),
	); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(p.text(), "\n"), "\n")
	for i, want := range []string{`"key":null,"value":null,`, `"key":"","value":"",`, `"key_base64":"wA==","value_base64":"7aCA",`} {
		if !strings.Contains(lines[i], want) || !json.Valid([]byte(lines[i])) {
			t.Errorf("line %d: %s lacks %s", i, lines[i], want)
		}
	}
}

func TestErrorStaysUntilBegin(t *testing.T) {
	p := newPipe()
	s := stdout.New(p)
	begin(t, s)
	p.set(func() { p.refuse = 1 })
	m := func(value string) *relay.Message { return &relay.Message{Topic: "a", Value: []byte(value)} }
	for _, v := range []string{"1", "2"} {
		if err := publish(t, s, m(v)); !errors.Is(err, errPipe) {
			t.Fatalf("message %s settled with %v", v, err)
		}
	}
	begin(t, s)
	if err := publish(t, s, m("3")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(p.text(), "\n"), "\n")
	if len(lines) != 2 || json.Valid([]byte(lines[0])) || !json.Valid([]byte(lines[1])) {
		t.Errorf("the half line runs into the next: %q", lines)
	}
}

func TestShortWriteIsAnError(t *testing.T) {
	s := stdout.New(shortWriter{})
	begin(t, s)
	if err := publish(t, s, &relay.Message{Topic: "a"}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("settled with %v", err)
	}
}

type shortWriter struct{}

func (shortWriter) Write(b []byte) (int, error) { return len(b) - 1, nil }

func TestBeginEndsWithItsContext(t *testing.T) {
	p := newPipe()
	s := stdout.New(p)
	begin(t, s)
	p.set(func() { p.stalled = true })
	settled := make(chan error, 1)
	s.Publish(relay.NewMessage(&relay.Message{Topic: "a"}, nil, func(err error) { settled <- err }))
	<-p.started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Begin(ctx, relay.Source{}); !errors.Is(err, context.Canceled) {
		t.Errorf("begin returned %v while a write is under way", err)
	}
	p.set(func() { p.stalled = false })
	if err := <-settled; err != nil {
		t.Errorf("the write went through, and its message settled with %v", err)
	}
}

func BenchmarkPublish(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	s := stdout.New(null)
	if _, err := s.Begin(b.Context(), relay.Source{}); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := bytes.Repeat([]byte("x"), 100)
	var wg sync.WaitGroup
	wg.Add(b.N)
	own := []relay.Header{{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}
	messages := make([]*relay.Message, b.N)
	for i := range messages {
		messages[i] = relay.NewMessage(&relay.Message{
			ID: []byte("0198b6a0-0000-7000-8000-000000000000"), Topic: "orders", Key: []byte("customer-17"), Value: value, CommittedAt: time.Now(),
		}, own, func(error) { wg.Done() })
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, m := range messages {
		s.Publish(m)
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
