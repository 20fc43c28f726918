package outboxtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
)

// Match is what a message must be like. A field left at its zero value matches anything.
type Match struct {
	ID    outbox.ID
	Topic string
	Key   *string // see outbox.Key; NoKey for a message without
	NoKey bool
	Type  string

	// Payload: [Tombstone]; a []byte, which must be the same bytes; anything
	// else, json.RawMessage included, must be the same JSON, in which spaces and the
	// order of keys do not count but numbers are compared as they are written.
	Payload any

	// Headers that must be there with these values; others may be.
	Headers outbox.Headers
}

// Tombstone matches a message without a payload.
const Tombstone tombstone = "tombstone"

type tombstone string

// RequireWritten ends the test unless the transaction has written messages that
// match want, one each, in this order, and no others. It returns them.
func RequireWritten(tb testing.TB, tx Querier, want ...Match) []outbox.Message {
	tb.Helper()
	return Require(tb, Written(tb, tx), want...)
}

// RequireWrittenPgx is [RequireWritten] for a pgx.Tx.
func RequireWrittenPgx[R PgxRows](tb testing.TB, tx PgxQuerier[R], want ...Match) []outbox.Message {
	tb.Helper()
	return Require(tb, WrittenPgx(tb, tx), want...)
}

// RequireNothing ends the test if the transaction has written a message.
func RequireNothing(tb testing.TB, tx Querier) {
	tb.Helper()
	Require(tb, Written(tb, tx))
}

// RequireNothingPgx is [RequireNothing] for a pgx.Tx.
func RequireNothingPgx[R PgxRows](tb testing.TB, tx PgxQuerier[R]) {
	tb.Helper()
	Require(tb, WrittenPgx(tb, tx))
}

// Require is [RequireWritten] for messages that are at hand, such as those of a
// [Recorder]. It returns got.
func Require(tb testing.TB, got []outbox.Message, want ...Match) []outbox.Message {
	tb.Helper()
	var report strings.Builder
	bad := len(got) != len(want)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			fmt.Fprintf(&report, "+ message %d: %s\n", i, describe(got[i]))
		case i >= len(got):
			fmt.Fprintf(&report, "- message %d: %s\n", i, want[i])
		default:
			differences := want[i].compare(got[i])
			bad = bad || len(differences) > 0
			fmt.Fprintf(&report, "  message %d: %s\n", i, describe(got[i]))
			for _, d := range differences {
				fmt.Fprintf(&report, "    - %s: %s\n    + %s: %s\n", d.field, d.want, d.field, d.got)
			}
		}
	}
	if bad {
		tb.Fatalf("outboxtest: %d messages were written, want %d (- want, + got):\n%s", len(got), len(want), report.String())
	}
	return got
}

type difference struct{ field, want, got string }

func (w Match) compare(got outbox.Message) []difference {
	var all []difference
	differ := func(field, want, got string) {
		if want != got {
			all = append(all, difference{field, want, got})
		}
	}
	if !w.ID.IsZero() {
		differ("ID", w.ID.String(), got.ID.String())
	}
	if w.Topic != "" {
		differ("Topic", w.Topic, got.Topic)
	}
	if w.Key != nil || w.NoKey {
		differ("Key", key(w.Key), key(got.Key))
	}
	if w.Type != "" {
		differ("Type", w.Type, got.Type)
	}
	if w.Payload != nil && !samePayload(w.Payload, got.Payload) {
		all = append(all, difference{"Payload", payload(w.Payload), payload(got.Payload)})
	}
	for _, name := range names(w.Headers) {
		value, there := got.Headers[name]
		if !there {
			differ("Headers["+name+"]", header(w.Headers[name]), "(none)")
		} else if !sameJSON(asJSON(w.Headers[name]), asJSON(value)) {
			differ("Headers["+name+"]", header(w.Headers[name]), header(value))
		}
	}
	return all
}

func samePayload(want, got any) bool {
	switch want := want.(type) {
	case tombstone:
		return got == nil
	case []byte:
		b, ok := got.([]byte)
		return ok && bytes.Equal(want, b)
	}
	text, ok := got.(json.RawMessage)
	return ok && sameJSON(asJSON(want), text)
}

func asJSON(v any) json.RawMessage {
	if text, ok := v.(json.RawMessage); ok {
		return text
	}
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(err.Error()) // not JSON: equal to nothing
	}
	return text
}

func sameJSON(a, b json.RawMessage) bool {
	left, okLeft := decode(a)
	right, okRight := decode(b)
	return okLeft && okRight && reflect.DeepEqual(left, right)
}

func decode(text json.RawMessage) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v) == nil
}

// String names the fields that are given.
func (w Match) String() string {
	var parts []string
	if !w.ID.IsZero() {
		parts = append(parts, "id "+w.ID.String())
	}
	if w.Topic != "" {
		parts = append(parts, "topic "+w.Topic)
	}
	if w.Key != nil || w.NoKey {
		parts = append(parts, "key "+key(w.Key))
	}
	if w.Type != "" {
		parts = append(parts, "type "+w.Type)
	}
	if w.Payload != nil {
		parts = append(parts, "payload "+payload(w.Payload))
	}
	for _, name := range names(w.Headers) {
		parts = append(parts, "header "+name+"="+header(w.Headers[name]))
	}
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, ", ")
}

func describe(m outbox.Message) string {
	full := Match{Topic: m.Topic, Key: m.Key, NoKey: m.Key == nil, Type: m.Type, Payload: m.Payload, Headers: m.Headers}
	if m.Payload == nil {
		full.Payload = Tombstone
	}
	return full.String()
}

func key(k *string) string {
	if k == nil {
		return "(none)"
	}
	return fmt.Sprintf("%q", *k)
}

// longest is how much of a payload a report shows, in bytes.
const longest = 200

func payload(p any) string {
	var text string
	switch p := p.(type) {
	case nil, tombstone:
		return "(tombstone)"
	case []byte:
		text = fmt.Sprintf("bytes %q", p)
	default:
		text = "JSON " + string(asJSON(p))
	}
	if len(text) > longest {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:longest], ""), len(text))
	}
	return text
}

func header(v any) string { return string(asJSON(v)) }

func names(h outbox.Headers) []string {
	all := make([]string, 0, len(h))
	for name := range h {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
