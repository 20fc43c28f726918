// Package pgoutput decodes the messages of PostgreSQL's pgoutput plugin,
// protocol version 1. It does no I/O, never panics on malformed input, and
// allocates only for Relation messages; decoded bytes alias the input.
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed pgoutput message")

// Kind is the first byte of a message.
type Kind byte

// The kinds the relay acts upon; all others are skipped by their first byte.
const (
	Begin    Kind = 'B'
	Commit   Kind = 'C'
	Relation Kind = 'R'
	Insert   Kind = 'I'
)

// BeginMessage opens a transaction.
type BeginMessage struct {
	FinalLSN   uint64
	CommitTime time.Time
	XID        uint32
}

// CommitMessage closes a transaction. EndLSN is what the slot may be moved to.
type CommitMessage struct {
	CommitLSN, EndLSN uint64
}

// RelationMessage names a table and its columns.
type RelationMessage struct {
	ID            uint32
	Schema, Table string
	Columns       []RelationColumn
}

type RelationColumn struct {
	Name    string
	TypeOID uint32
	Key     bool
}

func (k Kind) Known() bool { return bytes.IndexByte([]byte("BCORYIUDTM"), byte(k)) >= 0 }

// Column is one value of a tuple. Data aliases the decoded buffer.
type Column struct {
	Format byte // 'n' null, 'u' unchanged toast, 't' text, 'b' binary
	Data   []byte
}

// reader consumes src; after the first short read every method returns zero values.
type reader struct {
	src   []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.src) {
		r.short, r.src = true, nil
		return nil
	}
	b := r.src[:n:n]
	r.src = r.src[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) str() string {
	i := bytes.IndexByte(r.src, 0)
	if i < 0 {
		r.short, r.src = true, nil
		return ""
	}
	s := string(r.src[:i])
	r.src = r.src[i+1:]
	return s
}

func (r *reader) err(kind Kind) error {
	if r.short {
		return fmt.Errorf("%w: short %c", ErrMalformed, kind)
	}
	return nil
}

const y2k = 946684800 * 1_000_000

// ParseBegin decodes the body of a Begin message.
func ParseBegin(body []byte) (BeginMessage, error) {
	r := reader{src: body}
	m := BeginMessage{FinalLSN: r.u64(), CommitTime: time.UnixMicro(int64(r.u64()) + y2k), XID: r.u32()}
	return m, r.err(Begin)
}

// ParseCommit decodes the body of a Commit message.
func ParseCommit(body []byte) (CommitMessage, error) {
	r := reader{src: body}
	r.u8()
	m := CommitMessage{CommitLSN: r.u64(), EndLSN: r.u64()}
	return m, r.err(Commit)
}

// ParseRelation decodes the body of a Relation message.
func ParseRelation(body []byte) (RelationMessage, error) {
	r := reader{src: body}
	m := RelationMessage{ID: r.u32(), Schema: r.str(), Table: r.str()}
	r.u8()
	for n := r.u16(); n > 0 && !r.short; n-- {
		k := r.u8()
		c := RelationColumn{Name: r.str(), Key: k&1 == 1, TypeOID: r.u32()}
		m.Columns = append(m.Columns, c)
		r.u32()
	}
	return m, r.err(Relation)
}

// ParseInsert decodes the body of an Insert message, appending to cols.
func ParseInsert(body []byte, cols []Column) (relation uint32, _ []Column, _ error) {
	r := reader{src: body}
	relation = r.u32()
	if k := r.u8(); k != 'N' {
		return 0, nil, fmt.Errorf("%w: tuple kind %q", ErrMalformed, k)
	}
	for n := r.u16(); n > 0 && !r.short; n-- {
		c := Column{Format: r.u8()}
		switch c.Format {
		case 'n', 'u':
		case 't', 'b':
			c.Data = r.take(int(int32(r.u32())))
		default:
			return 0, nil, fmt.Errorf("%w: column format %q", ErrMalformed, c.Format)
		}
		cols = append(cols, c)
	}
	return relation, cols, r.err(Insert)
}
