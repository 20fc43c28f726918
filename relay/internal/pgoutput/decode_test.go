package pgoutput_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

// parse decodes a message of a kind that has a Parse function.
func parse(message []byte) (decoded any, _ error) {
	kind, body := pgoutput.Kind(message[0]), message[1:]
	switch kind {
	case pgoutput.Begin:
		return pgoutput.ParseBegin(body)
	case pgoutput.Commit:
		return pgoutput.ParseCommit(body)
	case pgoutput.Relation:
		return pgoutput.ParseRelation(body)
	case pgoutput.Insert:
		_, cols, err := pgoutput.ParseInsert(body, nil)
		return cols, err
	case pgoutput.Message:
		return pgoutput.ParseMessage(body)
	default:
		return nil, fmt.Errorf("kind %s is not parsed", kind)
	}
}

func parsed(kind pgoutput.Kind) bool { return strings.IndexByte("BCRIM", byte(kind)) >= 0 }

// describe is what messages say, a line each, without what differs from run to
// run: positions, times, xids and the ids of tables and types that are not built in.
func describe(t *testing.T, messages [][]byte) []string {
	t.Helper()
	tables := map[uint32]string{}
	var lines []string
	for _, m := range messages {
		kind, body := pgoutput.Kind(m[0]), m[1:]
		if !kind.Known() {
			t.Fatalf("kind %s is unknown", kind)
		}
		line := string(rune(kind))
		switch kind {
		case pgoutput.Begin, pgoutput.Commit:
			if _, err := parse(m); err != nil {
				t.Fatal(err)
			}
		case pgoutput.Relation:
			r, err := pgoutput.ParseRelation(body)
			if err != nil {
				t.Fatal(err)
			}
			tables[r.ID] = r.Schema + "." + r.Table
			line += " " + tables[r.ID] + describeColumns(r.Columns)
		case pgoutput.Insert:
			id, cols, err := pgoutput.ParseInsert(body, nil)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + tables[id] + describeRow(cols)
		case pgoutput.Message:
			l, err := pgoutput.ParseMessage(body)
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" transactional=%v %q %q", l.Transactional, l.Prefix, l.Content)
		case pgoutput.Update, pgoutput.Delete:
			line += fmt.Sprintf(" %s %q", tables[binary.BigEndian.Uint32(body)], body[4:])
		case pgoutput.Type:
			line += fmt.Sprintf(" %q", body[4:])
		case pgoutput.Truncate:
			for ids := body[5:]; len(ids) > 0; ids = ids[4:] {
				line += " " + tables[binary.BigEndian.Uint32(ids)]
			}
		case pgoutput.Origin:
			line += fmt.Sprintf(" %q", body[8:])
		default:
			t.Fatalf("kind %s was not asked for", kind)
		}
		lines = append(lines, line)
	}
	return lines
}

func describeColumns(columns []pgoutput.RelationColumn) string {
	var b strings.Builder
	for _, c := range columns {
		oid := fmt.Sprint(c.TypeOID)
		if c.TypeOID >= 16384 { // FirstNormalObjectId: made by users
			oid = "own"
		}
		fmt.Fprintf(&b, " %s:%s", c.Name, oid)
		if c.Key {
			b.WriteString(":key")
		}
	}
	return b.String()
}

func describeRow(cols []pgoutput.Column) string {
	var b strings.Builder
	for _, c := range cols {
		fmt.Fprintf(&b, " %c", c.Format)
		if c.Format == 't' || c.Format == 'b' {
			fmt.Fprintf(&b, "%q", c.Data)
		}
	}
	return b.String()
}

func nulls(n int) string { return strings.Repeat(" n", n) }

// What the golden files hold, in words, the same for every major.
func TestDecodeGolden(t *testing.T) {
	var wide strings.Builder
	for n := 1; n <= 300; n++ {
		fmt.Fprintf(&wide, " c%d:23", n)
	}
	const things = "R public.things id:20:key uid:2950:key j:114:key jb:3802:key raw:17:key acl:1033:key m:own:key p:own:key" +
		" num:1700:key at:1184:key ok:16:key label:25:key"
	want := []string{
		"B", `Y "public\x00mood\x00"`, `Y "public\x00pair\x00"`, things,
		`I public.things b"\x00\x00\x00\x00\x00\x00\x00\x01" b"\x01\x90\x16=\x86\x94s\x9b\xae\xa5\x96l&\xf8\xad\x91"` +
			` b"{\"a\": 1}" b"\x01{\"a\": 1}" b"\x00\xff\x10" t"pg_monitor=r/pg_monitor" b"sad"` +
			` b"\x00\x00\x00\x02\x00\x00\x00\x17\x00\x00\x00\x04\x00\x00\x00\a\x00\x00\x00\x19\x00\x00\x00\x01x"` +
			` b"\x00\x02\x00\x00\x00\x00\x00\x01\x00\x01\x13\x88" b"\x00\x03\x03\xda\xfcB\xd2@" b"\x01" b"täxt"`,
		`I public.things b"\x00\x00\x00\x00\x00\x00\x00\x02"` + nulls(11),
		`I public.things b"\x00\x00\x00\x00\x00\x00\x00\x03" n b"null" b"\x01[]" b"" t"pg_monitor=/pg_monitor" b"glad" n` +
			` b"\x00\x00\x00\x00\x00\x00\x00\x00" b"\x7f\xff\xff\xff\xff\xff\xff\xff" b"\x00" b""`,
		"C",
		"B", "R public.wide" + wide.String(), `I public.wide b"\x00\x00\x00\x01"` + nulls(298) + ` b"\xff\xff\xff\xff"`, "C",
		"B", `R public.Mixed "Case a b:25`, `I public.Mixed "Case b"v"`, "C",
	}
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			got := describe(t, golden(t, major))
			if d := cmp.Diff(want, got[:min(len(want), len(got))]); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			rest := strings.Join(got[len(want):], "\n")
			for _, line := range []string{
				"\nU public.things ", "\nD public.things ", "\nT public.things public.wide\n",
				`M transactional=true "inside" "content"`, `M transactional=false "" ""`,
				`O "pgoutput_test\x00"`, "\nI public.Mixed \"Case n\n",
			} {
				if !strings.Contains(rest, line) {
					t.Errorf("no line %q in\n%s", line, rest)
				}
			}
		})
	}
}

// Begin and Commit of a transaction agree with each other, and their times and
// positions are those of the capture, not shifted by a field.
func TestDecodeGoldenTransactions(t *testing.T) {
	for _, major := range postgres.Majors() {
		var begin pgoutput.BeginMessage
		var last uint64
		commits := 0
		for _, m := range golden(t, major) {
			switch pgoutput.Kind(m[0]) {
			case pgoutput.Begin:
				var err error
				if begin, err = pgoutput.ParseBegin(m[1:]); err != nil {
					t.Fatal(err)
				}
			case pgoutput.Commit:
				c, err := pgoutput.ParseCommit(m[1:])
				if err != nil {
					t.Fatal(err)
				}
				commits++
				if c.CommitLSN != begin.FinalLSN || c.EndLSN <= c.CommitLSN || c.CommitLSN <= last || !c.CommitTime.Equal(begin.CommitTime) || begin.XID == 0 {
					t.Errorf("%d: %+v does not close %+v", major, c, begin)
				}
				if y := c.CommitTime.UTC().Year(); y < 2026 || y > 2100 {
					t.Errorf("%d: committed in the year %d", major, y)
				}
				last = c.CommitLSN
			default:
			}
		}
		if commits == 0 {
			t.Errorf("%d: no transaction", major)
		}
	}
}

// A message that lacks its end, wherever it was cut, and one with a byte too
// many are errors. No prefix of any message may pass for a whole one.
func TestDecodeIncomplete(t *testing.T) {
	for _, major := range postgres.Majors() {
		for _, m := range golden(t, major) {
			if !parsed(pgoutput.Kind(m[0])) {
				continue
			}
			for n := 1; n < len(m); n++ {
				if _, err := parse(m[:n:n]); !errors.Is(err, pgoutput.ErrMalformed) {
					t.Errorf("%d: kind %q cut to %d of %d bytes: %v, want ErrMalformed", major, m[0], n, len(m), err)
				}
			}
			if _, err := parse(append(slices.Clip(m), 0)); !errors.Is(err, pgoutput.ErrMalformed) {
				t.Errorf("%d: kind %q with a byte too many: %v, want ErrMalformed", major, m[0], err)
			}
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, m := range map[string]string{
		"old tuple in an insert":       "I\x00\x00\x00\x01O\x00\x00",
		"unknown column format":        "I\x00\x00\x00\x01N\x00\x01x",
		"negative column length":       "I\x00\x00\x00\x01N\x00\x01b\xff\xff\xff\xff",
		"column longer than the rest":  "I\x00\x00\x00\x01N\x00\x01b\x7f\xff\xff\xffabc",
		"more columns than there are":  "I\x00\x00\x00\x01N\xff\xffn",
		"relation without end of name": "R\x00\x00\x00\x01public\x00things",
		"relation of 65535 columns":    "R\x00\x00\x00\x01public\x00things\x00d\xff\xff",
		"message of negative length":   "M\x00\x00\x00\x00\x00\x00\x00\x00\x01p\x00\xff\xff\xff\xff",
	} {
		if _, err := parse([]byte(m)); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestDecodeUnchangedAndEmpty(t *testing.T) {
	_, cols, err := pgoutput.ParseInsert([]byte("\x00\x00\x00\x01N\x00\x03unb\x00\x00\x00\x00"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []pgoutput.Column{{Format: 'u'}, {Format: 'n'}, {Format: 'b', Data: []byte{}}}
	if d := cmp.Diff(want, cols); d != "" { // an empty value is not nil: it is no null
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDecodeTime(t *testing.T) {
	body := make([]byte, 20)
	binary.BigEndian.PutUint64(body[8:], uint64(time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC).Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	b, err := pgoutput.ParseBegin(body)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.CommitTime.UTC().Format(time.RFC3339Nano); got != "2026-11-22T12:00:00.123456Z" {
		t.Error(got)
	}
}

func TestKindKnown(t *testing.T) {
	known := ""
	for k := range 256 {
		if pgoutput.Kind(k).Known() {
			known += string(rune(k))
		}
	}
	if known != "BCDIMORTUY" {
		t.Errorf("known kinds are %q, want those of protocol 1", known)
	}
}

// A row costs nothing.
func TestAllocations(t *testing.T) {
	first := map[pgoutput.Kind][]byte{}
	for _, m := range golden(t, 15) {
		if k := pgoutput.Kind(m[0]); first[k] == nil {
			first[k] = m[1:]
		}
	}
	cols := make([]pgoutput.Column, 0, 16)
	for kind, decode := range map[pgoutput.Kind]func(body []byte) error{
		pgoutput.Begin:   func(b []byte) error { _, err := pgoutput.ParseBegin(b); return err },
		pgoutput.Commit:  func(b []byte) error { _, err := pgoutput.ParseCommit(b); return err },
		pgoutput.Insert:  func(b []byte) error { _, _, err := pgoutput.ParseInsert(b, cols[:0]); return err },
		pgoutput.Message: func(b []byte) error { _, err := pgoutput.ParseMessage(b); return err },
	} {
		body := first[kind]
		if got := testing.AllocsPerRun(100, func() {
			if err := decode(body); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("kind %s: %v allocations, want none", kind, got)
		}
	}
}

func BenchmarkParseInsert(b *testing.B) {
	var row []byte
	for _, m := range golden(b, 15) {
		if pgoutput.Kind(m[0]) == pgoutput.Insert {
			row = m[1:]
			break
		}
	}
	var cols []pgoutput.Column
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		_, got, err := pgoutput.ParseInsert(row, cols[:0])
		if err != nil {
			b.Fatal(err)
		}
		cols = got
	}
}
