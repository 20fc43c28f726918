package outboxtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// failure catches what a requirement says.
type failure struct {
	testing.TB
	text string
}

func (f *failure) Helper() {}

func (f *failure) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}

// fails returns the report of a requirement that is not met, "" if it is.
func fails(got []outbox.Message, want ...outboxtest.Match) (report string) {
	var f failure
	defer func() {
		if p := recover(); p != nil && p != &f {
			panic(p)
		}
		report = f.text
	}()
	outboxtest.Require(&f, got, want...)
	return ""
}

func TestRequire(t *testing.T) {
	id, err := outbox.NewID()
	if err != nil {
		t.Fatal(err)
	}
	got := outbox.Message{
		ID: id, Topic: "orders", Key: outbox.Key("42"), Type: "OrderPaid",
		Payload: json.RawMessage(`{"n": 1.10, "a": "ä"}`), Headers: outbox.Headers{"tenant": "acme", "none": nil, "list": json.RawMessage("[1, 2]")},
	}
	for name, want := range map[string]outboxtest.Match{
		"anything":  {},
		"all":       {ID: id, Topic: "orders", Key: outbox.Key("42"), Type: "OrderPaid", Payload: json.RawMessage(`{"a":"ä","n":1.10}`)},
		"a value":   {Payload: map[string]any{"n": json.Number("1.10"), "a": "ä"}},
		"headers":   {Headers: outbox.Headers{"none": nil, "list": []int{1, 2}}},
		"one other": {Headers: outbox.Headers{"tenant": "acme"}},
	} {
		if report := fails([]outbox.Message{got}, want); report != "" {
			t.Errorf("%s: %s", name, report)
		}
	}
	for name, c := range map[string]struct {
		want  outboxtest.Match
		lines []string
	}{
		"ID":                {outboxtest.Match{ID: outbox.ID{1}}, []string{"- ID: 01000000-0000-0000-0000-000000000000", "+ ID: " + id.String()}},
		"topic":             {outboxtest.Match{Topic: "other"}, []string{"- Topic: other", "+ Topic: orders"}},
		"key":               {outboxtest.Match{Key: outbox.Key("")}, []string{`- Key: ""`, `+ Key: "42"`}},
		"no key":            {outboxtest.Match{NoKey: true}, []string{"- Key: (none)", `+ Key: "42"`}},
		"type":              {outboxtest.Match{Type: "x"}, []string{"- Type: x", "+ Type: OrderPaid"}},
		"number":            {outboxtest.Match{Payload: json.RawMessage(`{"n": 1.1, "a": "ä"}`)}, []string{"- Payload: JSON", "+ Payload: JSON"}},
		"bytes, not JSON":   {outboxtest.Match{Payload: []byte(`{"n": 1.10, "a": "ä"}`)}, []string{"- Payload: bytes", "+ Payload: JSON"}},
		"tombstone":         {outboxtest.Match{Payload: outboxtest.Tombstone}, []string{"- Payload: (tombstone)"}},
		"header":            {outboxtest.Match{Headers: outbox.Headers{"tenant": "b"}}, []string{`- Headers[tenant]: "b"`, `+ Headers[tenant]: "acme"`}},
		"header that lacks": {outboxtest.Match{Headers: outbox.Headers{"x": nil}}, []string{"- Headers[x]: null", "+ Headers[x]: (none)"}},
	} {
		report := fails([]outbox.Message{got}, c.want)
		for _, line := range c.lines {
			if !strings.Contains(report, line) {
				t.Errorf("%s: no %q in: %s", name, line, report)
			}
		}
	}
	if report := fails(nil, outboxtest.Match{Topic: "orders", NoKey: true}); !strings.Contains(report, "- message 0: topic orders, key (none)") {
		t.Error(report)
	}
	if report := fails([]outbox.Message{got}); !strings.Contains(report, `+ message 0: topic orders, key "42", type OrderPaid`) {
		t.Error(report)
	}
}

func TestRecorder(t *testing.T) {
	var r outboxtest.Recorder
	ctx := context.Background()
	if _, err := outbox.Write(ctx, &r, outbox.Message{Topic: "a"}, outbox.Message{Topic: "b"}); err != nil {
		t.Fatal(err)
	}
	outboxtest.Require(t, r.Messages(), outboxtest.Match{Topic: "a"}, outboxtest.Match{Topic: "b"})
	if err := r.Rollback(); err != nil || len(r.Messages()) != 0 {
		t.Errorf("%d messages after a rollback, %v", len(r.Messages()), err)
	}
	if _, err := r.ExecContext(ctx, "UPDATE orders SET state = 'paid'"); err == nil {
		t.Error("a statement of the business was taken")
	}
	r.Err = errors.New("away")
	if _, err := outbox.Write(ctx, &r, outbox.Message{Topic: "a"}); !errors.Is(err, r.Err) {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := outbox.Write(cancelled, &r, outbox.Message{Topic: "a"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
