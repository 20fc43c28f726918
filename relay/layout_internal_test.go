package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

func relation(columns ...string) pgoutput.RelationMessage {
	types := map[string]uint32{"id": oidUUID, "payload_bytes": oidBytea, "headers": oidJSONB, "payload": 114}
	r := pgoutput.RelationMessage{ID: 7, Schema: "outbox", Table: "events"}
	for _, c := range columns {
		oid, ok := types[c]
		if !ok {
			oid = 25
		}
		r.Columns = append(r.Columns, pgoutput.RelationColumn{Name: c, TypeOID: oid})
	}
	return r
}

func bin(s string) pgoutput.Column  { return pgoutput.Column{Format: 'b', Data: []byte(s)} }
func text(s string) pgoutput.Column { return pgoutput.Column{Format: 't', Data: []byte(s)} }

var null = pgoutput.Column{Format: 'n'}

const uuidBytes = "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"

type seen struct {
	ID, Key, Value, Type string
	HasKey, HasValue     bool
	Headers              []string
}

func see(m *Message) seen {
	s := seen{string(m.ID), string(m.Key), string(m.Value), string(m.Type), m.Key != nil, m.Value != nil, nil}
	for k, v := range m.Headers() {
		if v == nil {
			s.Headers = append(s.Headers, k+"!")
			continue
		}
		s.Headers = append(s.Headers, k+"="+string(v))
	}
	return s
}

func lay(t *testing.T, cols ...pgoutput.Column) (*Message, error) {
	t.Helper()
	l, err := newLayout(relation(nativeColumns[:]...), nativeColumns)
	if err != nil {
		t.Fatal(err)
	}
	r := row{layout: l, cols: cols}
	if err := r.check(); err != nil {
		return nil, err
	}
	m, bad := r.message([]byte("2026-11-23T10:00:00.000000Z"), own)
	if bad != nil {
		return nil, fmt.Errorf("%w: %w", ErrPoison, bad.cause)
	}
	m.source = []byte("1.1.s.1")
	m.place(Position{0xABC, 3}, 0, time.Unix(1, 0), settleFunc(func(error) {}))
	return m, nil
}

func TestNativeLayout(t *testing.T) {
	tail := []string{"outrider-position=0000000000000ABC.0000000000000003", "outrider-source=1.1.s.1", "outrider-committed-at=2026-11-23T10:00:00.000000Z"}
	const id = "01234567-89ab-cdef-0123-456789abcdef"
	for name, tc := range map[string]struct {
		cols []pgoutput.Column
		want seen
	}{
		"json": {
			[]pgoutput.Column{bin(uuidBytes), bin("orders"), bin("k1"), bin("OrderPlaced"), bin(`{"b":1,  "a":2, "b":3}`), null, bin("\x01{\"traceparent\": \"00-ab\", \"n\": 1, \"z\": null}")},
			seen{id, "k1", `{"b":1,  "a":2, "b":3}`, "OrderPlaced", true, true, append([]string{"id=" + id, "type=OrderPlaced", "traceparent=00-ab", "n=1", "z!"}, tail...)},
		},
		"bytes, no type, no headers": {
			[]pgoutput.Column{bin(uuidBytes), bin("orders"), bin(""), null, null, bin("\x00\xff"), null},
			seen{id, "", "\x00\xff", "", true, true, append([]string{"id=" + id}, tail...)},
		},
		"tombstone without key": {
			[]pgoutput.Column{bin(uuidBytes), bin("orders"), null, null, null, null, bin("\x01{}")},
			seen{id, "", "", "", false, false, append([]string{"id=" + id}, tail...)},
		},
		"text columns": {
			[]pgoutput.Column{text(id), text("orders"), text("k"), null, null, text(`\x00ff`), text(`{"a": "b"}`)},
			seen{id, "k", "\x00\xff", "", true, true, append([]string{"id=" + id, "a=b"}, tail...)},
		},
	} {
		m, err := lay(t, tc.cols...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, see(m)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		if n := len(see(m).Headers); m.HeaderCount() != n {
			t.Errorf("%s: HeaderCount %d, Headers yields %d", name, m.HeaderCount(), n)
		}
	}
}

func TestLayoutRefusesRowsThatCannotBePublished(t *testing.T) {
	for name, tc := range map[string]struct {
		cols []pgoutput.Column
		want error
	}{
		"two payloads":    {[]pgoutput.Column{bin(uuidBytes), bin("t"), null, null, bin("1"), bin("1"), null}, ErrPoison},
		"headers a list":  {[]pgoutput.Column{bin(uuidBytes), bin("t"), null, null, null, null, bin("\x01[]")}, ErrPoison},
		"no id":           {[]pgoutput.Column{null, bin("t"), null, null, null, null, null}, ErrPoison},
		"bytea not hex":   {[]pgoutput.Column{bin(uuidBytes), bin("t"), null, null, null, text("zz"), null}, ErrPoison},
		"fewer columns":   {[]pgoutput.Column{bin(uuidBytes), bin("t")}, pgoutput.ErrMalformed},
		"unchanged toast": {[]pgoutput.Column{bin(uuidBytes), bin("t"), null, null, {Format: 'u'}, null, null}, pgoutput.ErrMalformed},
	} {
		if _, err := lay(t, tc.cols...); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
}

// A renamed column must stop the relay: taking it for NULL would lose keys.
func TestLayoutNeedsEveryColumn(t *testing.T) {
	_, err := newLayout(relation("id", "topic", "k", "type", "payload", "payload_bytes", "headers", "seq"), nativeColumns)
	missing, ok := errors.AsType[*errColumns](err)
	if !ok || strings.Join(missing.missing, ",") != "key" || missing.newcomer() != "k" {
		t.Fatalf("renamed key: %v (missing %+v)", err, missing)
	}
	names := nativeColumns
	names[fieldKey] = "k"
	for _, key := range []string{"k", "key"} { // rows before and after the rename
		if _, err := newLayout(relation("id", "topic", key, "type", "payload", "payload_bytes", "headers"), names); err != nil {
			t.Errorf("with COLUMN_KEY=k, relation with %s: %v", key, err)
		}
	}
}

// A message costs two allocations: its bytes, and itself.
func TestLayoutAllocations(t *testing.T) {
	l, err := newLayout(relation(nativeColumns[:]...), nativeColumns)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"traceparent": "traceparent"}
	intern := func(b []byte) string { return names[string(b)] }
	commit := []byte("2026-11-23T10:00:00.000000Z")
	for name, headers := range map[string]pgoutput.Column{"without headers": null, "with headers": bin("\x01{\"traceparent\": \"00-ab\"}")} {
		r := row{layout: l, cols: []pgoutput.Column{bin(uuidBytes), bin("orders"), bin("k1"), bin("T"), bin(`{"a":1}`), null, headers}}
		got := testing.AllocsPerRun(100, func() {
			if _, bad := r.message(commit, intern); bad != nil {
				t.Fatal(bad.cause)
			}
		})
		if got > 2 {
			t.Errorf("%s: %v allocations a message, want 2 at most", name, got)
		}
	}
}
