package pgoutput_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

// seed adds the golden bodies of a kind, whole and cut.
func seed(f *testing.F, kind pgoutput.Kind) {
	f.Helper()
	for _, major := range postgres.Majors() {
		for _, m := range golden(f, major) {
			if pgoutput.Kind(m[0]) == kind {
				f.Add(m[1:])
				f.Add(m[1 : len(m)/2+1])
			}
		}
	}
}

// wellFormed fails on an error that is not ErrMalformed.
func wellFormed(t *testing.T, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, pgoutput.ErrMalformed) {
		t.Errorf("%v is not ErrMalformed", err)
	}
	return err == nil
}

// What is accepted is exactly what the columns say: encoded again it is the input.
func FuzzParseInsert(f *testing.F) {
	seed(f, pgoutput.Insert)
	f.Fuzz(func(t *testing.T, body []byte) {
		id, cols, err := pgoutput.ParseInsert(body, nil)
		if !wellFormed(t, err) {
			return
		}
		again := binary.BigEndian.AppendUint32(nil, id)
		again = binary.BigEndian.AppendUint16(append(again, 'N'), uint16(len(cols)))
		for _, c := range cols {
			again = append(again, c.Format)
			if c.Format == 't' || c.Format == 'b' {
				again = binary.BigEndian.AppendUint32(again, uint32(len(c.Data)))
				again = append(again, c.Data...)
			}
		}
		if d := cmp.Diff(body, again); d != "" {
			t.Errorf("(-input +encoded again):\n%s", d)
		}
	})
}

// Names and types account for every byte but the two that are not kept: the
// replica identity, and per column the flags and the type modifier.
func FuzzParseRelation(f *testing.F) {
	seed(f, pgoutput.Relation)
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := pgoutput.ParseRelation(body)
		if !wellFormed(t, err) {
			return
		}
		size := 4 + len(r.Schema) + 1 + len(r.Table) + 1 + 1 + 2
		for _, c := range r.Columns {
			size += 1 + len(c.Name) + 1 + 4 + 4
		}
		if size != len(body) {
			t.Errorf("%d bytes accounted for of %d", size, len(body))
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	seed(f, pgoutput.Message)
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := pgoutput.ParseMessage(body)
		if wellFormed(t, err) && 1+8+len(m.Prefix)+1+4+len(m.Content) != len(body) {
			t.Errorf("%d bytes of prefix and %d of content in %d", len(m.Prefix), len(m.Content), len(body))
		}
	})
}

func FuzzParseBegin(f *testing.F) {
	seed(f, pgoutput.Begin)
	f.Fuzz(func(t *testing.T, body []byte) {
		_, err := pgoutput.ParseBegin(body)
		if wellFormed(t, err) != (len(body) == 20) {
			t.Errorf("%d bytes: %v", len(body), err)
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	seed(f, pgoutput.Commit)
	f.Fuzz(func(t *testing.T, body []byte) {
		_, err := pgoutput.ParseCommit(body)
		if wellFormed(t, err) != (len(body) == 25) {
			t.Errorf("%d bytes: %v", len(body), err)
		}
	})
}
