package chaos

import (
	"encoding/hex"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// ID is the id of an outbox row: a uuid.
type ID [16]byte

// String is the id in the form of Postgres.
func (id ID) String() string {
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// ParseID parses the form of String; ok is false for anything else.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, false
	}
	_, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:]))
	return id, err == nil
}

// Content is what must arrive as it was written. Values are compared by hash,
// so that the journal of a long run stays small.
type Content struct {
	Topic     string
	Key       string
	Keyed     bool   // false: the key is null, and the row has no order
	Type      string // "": none
	N         int64  // place in the commit order of the key, from 1; 0 without a key
	Value     uint64 // Hash of the value; 0 for a tombstone
	Tombstone bool   // the value is null, which is not the same as empty
	Headers   uint64 // HashHeaders of the row's own headers except the counter
}

// Row is one event as its writer knows it.
type Row struct {
	ID ID
	Content
}

// Record is one record as read from Kafka.
type Record struct {
	Content
	ID        ID
	Partition int32
	Offset    int64
	Source    string // outrider-source; positions compare only under one
	Position  Position
	Timestamp time.Time
	Missing   Missing // headers that are absent or malformed
}

// Missing is a set of headers that a record should carry and does not.
type Missing uint8

// The headers that every record carries.
const (
	MissingID Missing = 1 << iota
	MissingPosition
	MissingSource
	MissingCommittedAt
	MissingCounter
)

// String names the headers.
func (m Missing) String() string {
	var names []string
	for i, name := range []string{headerID, headerPosition, headerSource, headerCommittedAt, HeaderCounter} {
		if m&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Names of headers, as consumers know them: the verifier shares no code with
// the relay that it judges.
const (
	headerID          = "id"
	headerType        = "type"
	headerPosition    = "outrider-position"
	headerSource      = "outrider-source"
	headerCommittedAt = "outrider-committed-at"
	// HeaderCounter is the row's own header that carries the counter: in a
	// header, so that tombstones have it too.
	HeaderCounter = "n"
)

// Position is the outrider-position header: commit LSN and number of the row
// in its transaction.
type Position struct{ LSN, Ordinal uint64 }

// Compare orders positions of one source.
func (p Position) Compare(q Position) int {
	switch {
	case p.LSN != q.LSN && p.LSN < q.LSN, p.LSN == q.LSN && p.Ordinal < q.Ordinal:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// ParsePosition parses two hexadecimal numbers of 16 digits with a point between.
func ParsePosition(s string) (Position, bool) {
	a, b, ok := strings.Cut(s, ".")
	if !ok || len(a) != 16 || len(b) != 16 {
		return Position{}, false
	}
	lsn, err1 := strconv.ParseUint(a, 16, 64)
	ordinal, err2 := strconv.ParseUint(b, 16, 64)
	return Position{lsn, ordinal}, err1 == nil && err2 == nil
}

// Partition names a partition of a topic.
type Partition struct {
	Topic string
	Index int32
}

// Sample is a look at the slot while the relay streams. The three values are
// read one after another in this order, so that a relay which works can never
// be accused: what was confirmed at the first look must be in the row at the
// second and on Kafka at the third. No sample may be taken while a backlog is
// being published, as its rows lie before the slot.
type Sample struct {
	Server    string              // "<system id>.<timeline>"; LSNs compare only under one
	Confirmed uint64              // confirmed_flush_lsn of the slot
	Durable   uint64              // confirmed_lsn of the progress row; 0: not looked at
	Ends      map[Partition]int64 // end offsets
}

// History is all that is known about a run.
type History struct {
	Committed  []Row
	RolledBack []ID     // whole transactions and savepoints
	Vanished   []ID     // were committed; the database has lost them, and Kafka may have them
	Records    []Record // of each partition in the order of its offsets
	Table      []ID     // ids that stand in the table at the end; nil: not looked at
	Samples    []Sample

	// KeyContention is how often a writer met another one on a key. Without
	// such meetings the order was never in danger, and the run proves nothing.
	KeyContention int
	// Hanging names partitions in which a transaction was open long after the relays had ended.
	Hanging []string
	// ExactlyOnce makes duplicates a finding.
	ExactlyOnce bool
}

// Hash is how values are compared.
func Hash(value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(value)
	return h.Sum64()
}

// HashHeader is the part of one header in [Content.Headers], which is their sum:
// the order of headers is not promised. A nil value is a null header.
func HashHeader(key string, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	if value == nil {
		_, _ = h.Write([]byte{0})
	} else {
		_, _ = h.Write([]byte{1})
		_, _ = h.Write(value)
	}
	return h.Sum64()
}
