package outbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

func TestPayloads(t *testing.T) {
	exact := json.RawMessage(` {"b": 1.10, "a":2,"b":  3} `)
	codec := outbox.CodecFunc(func(_ context.Context, m *outbox.Message) error {
		m.Payload = []byte("encoded")
		m.Headers["content-type"] = "test"
		return nil
	})
	for name, c := range map[string]struct {
		payload any
		codec   outbox.Codec
		want    any // nil, []byte or json.RawMessage
	}{
		"nil":             {payload: nil},
		"nil bytes":       {payload: []byte(nil), want: []byte{}},
		"empty bytes":     {payload: []byte{}, want: []byte{}},
		"bytes":           {payload: []byte{0, 255, '"'}, want: []byte{0, 255, '"'}},
		"raw":             {payload: exact, want: exact},
		"pointer to raw":  {payload: &exact, want: exact},
		"nil pointer":     {payload: (*int)(nil), want: json.RawMessage("null")},
		"value":           {payload: map[string]any{"a": "<>"}, want: json.RawMessage(`{"a":"\u003c\u003e"}`)},
		"text":            {payload: "a", want: json.RawMessage(`"a"`)},
		"codec":           {payload: 1, codec: codec, want: []byte("encoded")},
		"codec and nil":   {payload: nil, codec: codec},
		"codec and raw":   {payload: exact, codec: codec, want: exact},
		"codec and bytes": {payload: []byte("a"), codec: codec, want: []byte("a")},
	} {
		t.Run(name, func(t *testing.T) {
			var r outboxtest.Recorder
			given := outbox.Headers{}
			w := outbox.Writer{Codec: c.codec}
			if _, err := w.Write(context.Background(), &r, outbox.Message{Topic: "t", Payload: c.payload, Headers: given}); err != nil {
				t.Fatal(err)
			}
			if len(given) != 0 {
				t.Error("the caller's headers were changed")
			}
			got := r.Messages()[0]
			same := false
			switch want := c.want.(type) {
			case nil:
				same = got.Payload == nil
			case []byte:
				b, ok := got.Payload.([]byte)
				same = ok && bytes.Equal(b, want)
			case json.RawMessage:
				text, ok := got.Payload.(json.RawMessage)
				same = ok && bytes.Equal(text, want)
			}
			if !same {
				t.Errorf("payload is %T %q, want %q", got.Payload, got.Payload, c.want)
			}
			if encoded := c.codec != nil && c.payload == 1; encoded != (got.Headers["content-type"] == "test") {
				t.Errorf("headers are %v", got.Headers)
			}
		})
	}
}

func TestHeadersOfTheContext(t *testing.T) {
	calls := 0
	w := outbox.Writer{ContextHeaders: func(context.Context) map[string]string {
		calls++
		return map[string]string{"a": "hook", "b": "hook", "c": "hook"}
	}}
	outer := outbox.WithHeaders(context.Background(), map[string]string{"b": "outer", "d": "outer"})
	inner := outbox.WithHeaders(outer, map[string]string{"d": "inner", "c": "inner"})
	var r outboxtest.Recorder
	_, err := w.Write(inner, &r, outbox.Message{Topic: "t", Headers: outbox.Headers{"c": nil, "e": "own"}}, outbox.Message{Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Write(outer, &r, outbox.Message{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	got := outboxtest.Require(t, r.Messages(),
		outboxtest.Match{Headers: outbox.Headers{"a": "hook", "b": "outer", "c": nil, "d": "inner", "e": "own"}},
		outboxtest.Match{Headers: outbox.Headers{"a": "hook", "b": "outer", "c": "inner", "d": "inner"}},
		outboxtest.Match{Headers: outbox.Headers{"b": "outer", "d": "outer"}})
	if len(got[2].Headers) != 2 || calls != 1 {
		t.Errorf("headers are %v after %d calls of the hook", got[2].Headers, calls)
	}
}

func TestIDsGrowAndAreOfVersion7(t *testing.T) {
	var r outboxtest.Recorder
	msgs := make([]outbox.Message, 5000)
	for i := range msgs {
		msgs[i].Topic = "t"
	}
	before := time.Now().UnixMilli()
	ids, err := outbox.Write(context.Background(), &r, msgs...)
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now().UnixMilli()
	for i, id := range ids {
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Fatalf("%s is not of version 7, variant 10", id)
		}
		ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
		if ms < before || ms > after {
			t.Fatalf("%s is of %d, not between %d and %d", id, ms, before, after)
		}
		if i > 0 && bytes.Compare(ids[i-1][:], id[:]) >= 0 {
			t.Fatalf("%s follows %s", id, ids[i-1])
		}
	}
	for i, m := range r.Messages() {
		if m.ID != ids[i] {
			t.Fatalf("message %d was written with another id than returned", i)
		}
	}
}

func TestIDAsText(t *testing.T) {
	const text = "0190163d-8694-739b-aea5-966c26f8ad91"
	id, err := outbox.ParseID(text)
	if err != nil || id.String() != text || id.IsZero() || !(outbox.ID{}).IsZero() {
		t.Fatalf("%s, %v", id, err)
	}
	if v, err := id.Value(); err != nil || v != text {
		t.Errorf("value is %v, %v", v, err)
	}
	for _, src := range []any{text, []byte(text), [16]byte(id), id[:]} {
		var got outbox.ID
		if err := got.Scan(src); err != nil || got != id {
			t.Errorf("from %T: %s, %v", src, got, err)
		}
	}
	encoded, err := json.Marshal(map[outbox.ID]outbox.ID{id: id})
	if err != nil || string(encoded) != `{"`+text+`":"`+text+`"}` {
		t.Errorf("JSON is %s, %v", encoded, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", "0190163d_8694-739b-aea5-966c26f8ad91", "g190163d-8694-739b-aea5-966c26f8ad91"} {
		if _, err := outbox.ParseID(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	var got outbox.ID
	for _, bad := range []any{nil, 1, "x", []byte("x")} {
		if err := got.Scan(bad); err == nil {
			t.Errorf("%v was scanned", bad)
		}
	}
}
