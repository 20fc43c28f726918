package relay

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

// field is a column of the outbox table that the relay reads.
type field int

const (
	fieldID field = iota
	fieldTopic
	fieldKey
	fieldType
	fieldPayload
	fieldPayloadBytes
	fieldHeaders
	fieldCount
)

// nativeColumns are the columns of the table that `outrider migrate` makes.
//
//nolint:gochecknoglobals // a table that nobody changes
var nativeColumns = [fieldCount]string{"id", "topic", "key", "type", "payload", "payload_bytes", "headers"}

// Types whose binary form is not the text of the value (pg_type.dat).
const (
	oidBytea = 17
	oidUUID  = 2950
	oidJSONB = 3802
)

// layout knows where in a row of one relation the columns are. It is made anew
// from every Relation message, by name: a column may move at any time.
type layout struct {
	at    [fieldCount]int
	types [fieldCount]uint32
}

// errColumns tells which columns a relation lacks.
type errColumns struct {
	table   string
	missing []string
	found   []string
}

func (e *errColumns) Error() string {
	return fmt.Sprintf("rows of %s come without the columns %s (they have %s)",
		e.table, strings.Join(e.missing, ", "), strings.Join(e.found, ", "))
}

// newLayout fails if a column is missing. Taking an absent column for NULL
// would lose keys or payloads silently after a rename.
func newLayout(r pgoutput.RelationMessage, names [fieldCount]string) (*layout, error) {
	l := &layout{}
	missing := &errColumns{table: r.Schema + "." + r.Table}
	for f, name := range names {
		l.at[f] = slices.IndexFunc(r.Columns, func(c pgoutput.RelationColumn) bool {
			return c.Name == name || c.Name == nativeColumns[f]
		})
		if l.at[f] < 0 {
			missing.missing = append(missing.missing, name)
			continue
		}
		l.types[f] = r.Columns[l.at[f]].TypeOID
	}
	if missing.missing == nil {
		return l, nil
	}
	for _, c := range r.Columns {
		missing.found = append(missing.found, c.Name)
	}
	return nil, missing
}

// row is a decoded row whose bytes still lie in the connection's buffer.
type row struct {
	layout *layout
	cols   []pgoutput.Column
	bad    *unfit // a message that is no event
}

func (r row) col(f field) pgoutput.Column { return r.cols[r.layout.at[f]] }

// check makes sure that the row has the shape that its relation announced.
func (r row) check() error {
	for f := range fieldCount {
		if r.layout.at[f] >= len(r.cols) {
			return fmt.Errorf("%w: row has %d columns, fewer than its relation", pgoutput.ErrMalformed, len(r.cols))
		}
		if r.col(f).Format == 'u' { // never for an INSERT (logicalrep_write_tuple)
			return fmt.Errorf("%w: unchanged TOAST value in an insert", pgoutput.ErrMalformed)
		}
	}
	return nil
}

//nolint:gochecknoglobals // one seed a process: what is hashed never leaves it
var idSeed = maphash.MakeSeed()

// rowID condenses the id column; the ledger compares it when a row comes again.
func (r row) rowID() uint64 { return maphash.Bytes(idSeed, r.col(fieldID).Data) }

// message copies the row out of the connection's buffer, once and into one
// piece: id as text, position, commit time, then the columns. A row that cannot
// be a message comes with the reason, and with what can be read of it.
func (r row) message(commitText []byte, names func([]byte) string) (*Message, *unfit) {
	id, key, typ, headers := r.col(fieldID), r.col(fieldKey), r.col(fieldType), r.col(fieldHeaders)
	f := fieldPayload
	if r.col(fieldPayload).Format == 'n' {
		f = fieldPayloadBytes
	}
	value := r.col(f)
	size := max(uuidLen, len(id.Data)) + positionLen + len(commitText) +
		len(key.Data) + len(value.Data) + len(typ.Data) + len(headers.Data)
	b := buffer{make([]byte, 0, size)}

	m, own := newRowMessage(headers.Format != 'n')
	m.ID = b.add(appendID, id, r.layout.types[fieldID])
	m.texts = b.b[len(b.b) : len(b.b)+positionLen+len(commitText)]
	b.b = append(b.b[:len(b.b)+positionLen], commitText...) // the position is written when the ledger has given it
	m.Key = b.add(appendText, key, r.layout.types[fieldKey])
	m.Type = b.add(appendText, typ, r.layout.types[fieldType])
	var err error
	var bad *unfit
	if m.Value, err = b.value(value, r.layout.types[f]); err != nil {
		m.Value, bad = b.add(appendText, value, r.layout.types[f]), &unfit{cause: err}
	}
	if headers.Format != 'n' {
		text := b.add(appendJSON, headers, r.layout.types[fieldHeaders])
		if m.own, err = parseHeaders(text, own, names); err != nil {
			m.own, bad = nil, &unfit{cause: err, headers: text}
		}
	}
	switch {
	case m.ID == nil:
		bad = bad.with(errNoID)
	case f == fieldPayload && r.col(fieldPayloadBytes).Format != 'n':
		bad = bad.with(fmt.Errorf("%w; the latter has %d bytes", errTwoValues, len(r.col(fieldPayloadBytes).Data)))
	}
	m.charge = int64(cap(b.b)) + messageOverhead
	return m, bad
}

var (
	errNoID      = errors.New("row without id")
	errTwoValues = errors.New("row with both payload and payload_bytes")
)

// place gives m the position that the ledger found for it.
func (m *Message) place(p Position, ordinal uint64, committed time.Time, owner settler) {
	m.Position, m.CommittedAt, m.owner, m.bit = p, committed, owner, uint8(ordinal%chunkRows)
	appendPosition(m.texts[:0], p)
}

// newRowMessage allocates a message, with room for a few headers beside it if it has any.
func newRowMessage(headers bool) (*Message, []Header) {
	if !headers {
		return &Message{}, nil
	}
	m := &struct {
		Message
		room [4]Header
	}{}
	return &m.Message, m.room[:0]
}

// idText is the id for an error message.
func (r row) idText() string {
	return string(appendID(nil, r.col(fieldID), r.layout.types[fieldID]))
}

// buffer holds the bytes of one message. Slices of it end at their own length,
// so that no append of a sink can run into the next field.
type buffer struct{ b []byte }

func (b *buffer) add(to func([]byte, pgoutput.Column, uint32) []byte, c pgoutput.Column, oid uint32) []byte {
	if c.Format == 'n' {
		return nil
	}
	start := len(b.b)
	b.b = to(b.b, c, oid)
	return b.b[start:len(b.b):len(b.b)]
}

func (b *buffer) value(c pgoutput.Column, oid uint32) ([]byte, error) {
	if oid == oidBytea && c.Format == 't' {
		return unhex(b, c.Data)
	}
	if oid == oidJSONB {
		return b.add(appendJSON, c, oid), nil
	}
	return b.add(appendText, c, oid), nil
}

var errBytea = errors.New("bytea in text form is not hex")

func unhex(b *buffer, text []byte) ([]byte, error) {
	start := len(b.b)
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return nil, errBytea
	}
	out, err := hex.AppendDecode(b.b, text[2:])
	if err != nil {
		return nil, errBytea
	}
	b.b = out
	return b.b[start:len(b.b):len(b.b)], nil
}

const uuidLen = 36

func appendID(b []byte, c pgoutput.Column, oid uint32) []byte {
	d := c.Data
	if oid != oidUUID || c.Format != 'b' || len(d) != 16 {
		return append(b, d...)
	}
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, d[:n])
		d = d[n:]
	}
	return b
}

func appendText(b []byte, c pgoutput.Column, _ uint32) []byte { return append(b, c.Data...) }

// appendJSON drops the version byte that jsonb_send puts before the text.
func appendJSON(b []byte, c pgoutput.Column, oid uint32) []byte {
	d := c.Data
	if oid == oidJSONB && c.Format == 'b' && len(d) > 0 && d[0] == 1 {
		d = d[1:]
	}
	return append(b, d...)
}
