package outbox

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// ID identifies an event: header id on Kafka, the same on every redelivery. It
// is a UUID; types of other packages with the same bytes can be converted to
// it. The zero ID stands for "none given".
type ID [16]byte

// NewID returns a UUID of version 7: it sorts by the time at which it was made,
// to about a quarter of a microsecond. The error is the operating system's, when it
// has no random numbers.
func NewID() (ID, error) {
	var s idSequence
	return s.next()
}

// ParseID reads the 36 characters of a UUID with hyphens, of any version.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, fmt.Errorf("parse id %q: want xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, fmt.Errorf("parse id %q: %w", s, err)
	}
	return id, nil
}

// String is the text that arrives on Kafka: 36 characters, lower case.
func (id ID) String() string {
	text, _ := id.MarshalText()
	return string(text)
}

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns the text of String; the error is always nil.
func (id ID) MarshalText() ([]byte, error) {
	text := make([]byte, 36)
	hex.Encode(text, id[:4])
	hex.Encode(text[9:], id[4:6])
	hex.Encode(text[14:], id[6:8])
	hex.Encode(text[19:], id[8:10])
	hex.Encode(text[24:], id[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return text, nil
}

// UnmarshalText reads what [ParseID] reads.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Value lets an ID be a parameter of a query, as text.
func (id ID) Value() (driver.Value, error) { return id.String(), nil }

// Scan reads a column of type uuid or text.
func (id *ID) Scan(src any) error {
	switch src := src.(type) {
	case string:
		return id.UnmarshalText([]byte(src))
	case [16]byte:
		*id = src
		return nil
	case []byte:
		if len(src) == len(id) {
			copy(id[:], src)
			return nil
		}
		return id.UnmarshalText(src)
	}
	return fmt.Errorf("scan id: cannot read %T", src)
}

// idSequence makes ids that grow. RFC 9562, section 6.2: the clock fills the 48
// bits of milliseconds and 12 more (method 3, as the table's own default does);
// of the 62 random bits behind them each id of the sequence is a random step
// above the one before (method 2), so that a clock that stands still or is set
// back changes nothing.
type idSequence struct{ high, low uint64 }

func (s *idSequence) next() (ID, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return ID{}, fmt.Errorf("outbox: random numbers for an id: %w", err)
	}
	r := binary.BigEndian.Uint64(random[:])
	if s.high == 0 {
		now := time.Now().UnixNano()
		s.high = uint64(now/1e6)<<16 | 7<<12 | uint64(now%1e6*4096/1e6)
		s.low = r >> 3 // 61 bits: room for 2^29 steps, more than fit into memory
	} else {
		s.low += 1 + r>>32
	}
	var id ID
	binary.BigEndian.PutUint64(id[:], s.high)
	binary.BigEndian.PutUint64(id[8:], 1<<63|s.low)
	return id, nil
}
