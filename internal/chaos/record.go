package chaos

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// parseRecord keeps of a record what the verifier needs. It believes nothing: a
// header that is absent, twice there or malformed is missing.
func parseRecord(kr *kgo.Record, intern func(string) string) Record {
	rec := Record{
		Content: Content{
			Topic: intern(kr.Topic), Key: intern(string(kr.Key)), Keyed: kr.Key != nil, Tombstone: kr.Value == nil,
		},
		Partition: kr.Partition, Offset: kr.Offset, Timestamp: kr.Timestamp,
		Missing: MissingID | MissingPosition | MissingSource | MissingCommittedAt | MissingCounter,
	}
	if !rec.Tombstone {
		rec.Value = Hash(kr.Value)
	}
	for _, h := range kr.Headers {
		switch h.Key {
		case headerID, headerPosition, headerSource, headerCommittedAt, HeaderCounter:
			rec.parseHeader(h.Key, string(h.Value), intern)
		case headerType:
			rec.Type = intern(string(h.Value))
		default:
			rec.Headers += HashHeader(h.Key, h.Value)
		}
	}
	return rec
}

// parseHeader takes one of the headers that every record carries.
func (rec *Record) parseHeader(name, value string, intern func(string) string) {
	var bit Missing
	ok := value != ""
	switch name {
	case headerID:
		bit = MissingID
		rec.ID, ok = ParseID(value)
	case headerPosition:
		bit = MissingPosition
		rec.Position, ok = ParsePosition(value)
	case headerSource:
		bit = MissingSource
		rec.Source = intern(value)
	case headerCommittedAt:
		bit = MissingCommittedAt
		_, err := time.Parse(time.RFC3339Nano, value)
		ok = err == nil
	case HeaderCounter:
		bit = MissingCounter
		n, err := strconv.ParseInt(value, 10, 64)
		rec.N, ok = n, err == nil
	}
	switch {
	case !ok:
	case rec.Missing&bit == 0:
		// There twice: which one is meant? Adding to the hash makes the record differ.
		rec.Headers += HashHeader(name, []byte(value))
	default:
		rec.Missing &^= bit
	}
}
