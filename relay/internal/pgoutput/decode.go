// Package pgoutput decodes the messages of PostgreSQL's pgoutput plugin in
// protocol version 1 (PostgreSQL documentation, "Logical Replication Message
// Formats"). It does no I/O, never panics on any bytes, and allocates nothing
// for a row: decoded bytes alias the input.
//
// It does not keep relations, and it does not know the inner forms of streamed
// and two-phase transactions, which protocol 1 never sends; it recognises their
// kinds.
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrMalformed is wrapped by every error of this package.
var ErrMalformed = errors.New("malformed pgoutput message")

// Kind is the first byte of a message; the Parse functions take what follows.
type Kind byte

// All kinds of protocols 1 to 4.
const (
	Begin            Kind = 'B'
	Commit           Kind = 'C'
	Origin           Kind = 'O'
	Relation         Kind = 'R'
	Type             Kind = 'Y'
	Insert           Kind = 'I'
	Update           Kind = 'U'
	Delete           Kind = 'D'
	Truncate         Kind = 'T'
	Message          Kind = 'M'
	StreamStart      Kind = 'S'
	StreamStop       Kind = 'E'
	StreamCommit     Kind = 'c'
	StreamAbort      Kind = 'A'
	BeginPrepare     Kind = 'b'
	Prepare          Kind = 'P'
	CommitPrepared   Kind = 'K'
	RollbackPrepared Kind = 'r'
	StreamPrepare    Kind = 'p'
)

// Known reports whether protocol 1 has the kind. A streamed or two-phase kind
// under protocol 1 means that the server does not do what it was asked.
func (k Kind) Known() bool { return strings.IndexByte("BCORYIUDTM", byte(k)) >= 0 }

// String is the letter, quoted.
func (k Kind) String() string { return fmt.Sprintf("%q", byte(k)) }

// BeginMessage opens a transaction.
type BeginMessage struct {
	FinalLSN   uint64 // where its commit record starts
	CommitTime time.Time
	XID        uint32
}

// CommitMessage closes a transaction.
type CommitMessage struct {
	CommitLSN  uint64 // where the commit record starts, as in Begin
	EndLSN     uint64 // where it ends: what a slot may be confirmed to
	CommitTime time.Time
}

// RelationMessage describes a table. It comes before the first row of the table
// on a connection, and again whenever the server's cache of it was invalidated.
type RelationMessage struct {
	ID            uint32
	Schema, Table string
	Columns       []RelationColumn
}

// RelationColumn is a column as the rows that follow carry it.
type RelationColumn struct {
	Name    string
	TypeOID uint32
	Key     bool // part of the replica identity
}

// Column is one value of a row.
type Column struct {
	Format byte   // 'n' null, 'u' unchanged TOAST value, 't' text, 'b' binary
	Data   []byte // aliases the input; nil for 'n' and 'u'
}

// LogicalMessage is what pg_logical_emit_message wrote.
type LogicalMessage struct {
	Transactional bool
	LSN           uint64
	Prefix        []byte // aliases the input
	Content       []byte // aliases the input
}

// ParseBegin decodes the body of a Begin message.
func ParseBegin(body []byte) (BeginMessage, error) {
	r := reader{src: body}
	m := BeginMessage{FinalLSN: r.u64(), CommitTime: r.time(), XID: r.u32()}
	return m, r.end(Begin)
}

// ParseCommit decodes the body of a Commit message.
func ParseCommit(body []byte) (CommitMessage, error) {
	r := reader{src: body}
	r.u8() // flags, unused
	m := CommitMessage{CommitLSN: r.u64(), EndLSN: r.u64(), CommitTime: r.time()}
	return m, r.end(Commit)
}

// ParseRelation decodes the body of a Relation message.
func ParseRelation(body []byte) (RelationMessage, error) {
	r := reader{src: body}
	m := RelationMessage{ID: r.u32(), Schema: r.str(), Table: r.str()}
	r.u8()                                     // replica identity
	for n := r.u16(); n > 0 && !r.short; n-- { // grows as bytes are there, not as they are announced
		flags := r.u8()
		c := RelationColumn{Key: flags&1 == 1, Name: r.str(), TypeOID: r.u32()}
		r.u32() // type modifier
		m.Columns = append(m.Columns, c)
	}
	return m, r.end(Relation)
}

// ParseInsert decodes the body of an Insert message, appending its columns to cols.
func ParseInsert(body []byte, cols []Column) (relation uint32, _ []Column, _ error) {
	r := reader{src: body}
	relation = r.u32()
	if tuple := r.u8(); tuple != 'N' && !r.short {
		return 0, nil, fmt.Errorf("%w: tuple kind %q in an insert", ErrMalformed, tuple)
	}
	cols, err := r.tuple(cols)
	if err != nil {
		return 0, nil, err
	}
	return relation, cols, r.end(Insert)
}

// ParseTuple decodes TupleData, as it stands in an Insert message, appending its columns to cols.
func ParseTuple(body []byte, cols []Column) ([]Column, error) {
	r := reader{src: body}
	cols, err := r.tuple(cols)
	if err != nil {
		return nil, err
	}
	return cols, r.end(Insert)
}

func (r *reader) tuple(cols []Column) ([]Column, error) {
	for n := r.u16(); n > 0 && !r.short; n-- {
		c := Column{Format: r.u8()}
		switch c.Format {
		case 'n', 'u':
		case 't', 'b':
			c.Data = r.take(int(int32(r.u32())))
		default:
			if !r.short {
				return nil, fmt.Errorf("%w: column format %q", ErrMalformed, c.Format)
			}
		}
		cols = append(cols, c)
	}
	return cols, nil
}

// ParseMessage decodes the body of a Message message.
func ParseMessage(body []byte) (LogicalMessage, error) {
	r := reader{src: body}
	m := LogicalMessage{Transactional: r.u8()&1 == 1, LSN: r.u64(), Prefix: r.bytesUntilNUL()}
	m.Content = r.take(int(int32(r.u32())))
	return m, r.end(Message)
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

// epoch is 2000-01-01 in microseconds since 1970.
const epoch = 946_684_800 * 1_000_000

func (r *reader) time() time.Time { return time.UnixMicro(int64(r.u64()) + epoch) }

func (r *reader) bytesUntilNUL() []byte {
	i := bytes.IndexByte(r.src, 0)
	if i < 0 {
		r.short, r.src = true, nil
		return nil
	}
	b := r.take(i)
	r.u8()
	return b
}

func (r *reader) str() string { return string(r.bytesUntilNUL()) }

// end fails if bytes were missing or are left over.
func (r *reader) end(kind Kind) error {
	switch {
	case r.short:
		return fmt.Errorf("%w: kind %s ends early", ErrMalformed, kind)
	case len(r.src) > 0:
		return fmt.Errorf("%w: kind %s has %d bytes too many", ErrMalformed, kind, len(r.src))
	}
	return nil
}
