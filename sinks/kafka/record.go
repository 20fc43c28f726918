package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// record is what the sink holds for one message from Publish to the ack. It is
// used again afterwards, so that a steady stream allocates nothing: 176 bytes
// and 40 for each header.
//
// It is its own record's context, which never ends and carries nothing: that
// field is how the promise finds its way back without a closure per message.
type record struct {
	kafka   kgo.Record
	message *relay.Message
	topic   *topic
}

// unpartitioned marks a record that franz-go has not given a partition. The
// client overwrites it, as its partitioner does not read it.
const unpartitioned = -1

// maxKeptHeaders bounds what a message with many headers leaves behind in the pool.
const maxKeptHeaders = 32

// fill makes r the record of m. It copies no bytes: m's stay as they are until
// it is settled, and franz-go is done with them before.
func (r *record) fill(m *relay.Message, t *topic, timestamp time.Time) {
	headers := r.kafka.Headers[:0]
	if n := m.HeaderCount(); cap(headers) < n {
		headers = make([]kgo.RecordHeader, 0, n)
	}
	for k, v := range m.Headers() {
		headers = append(headers, kgo.RecordHeader{Key: k, Value: v})
	}
	r.message, r.topic = m, t
	r.kafka = kgo.Record{
		Topic: t.name, Key: m.Key, Value: m.Value, Headers: headers,
		Timestamp: timestamp, Partition: unpartitioned, Context: r,
	}
}

// release gives r back. Nothing of its message may be reachable from it then.
func (s *Sink) release(r *record) {
	headers := r.kafka.Headers
	if cap(headers) > maxKeptHeaders {
		headers = nil
	}
	clear(headers)
	*r = record{kafka: kgo.Record{Headers: headers[:0]}}
	s.records.Put(r)
}

func (s *Sink) newRecord() *record {
	if r, ok := s.records.Get().(*record); ok {
		return r
	}
	return new(record)
}

// estimate is how large a record batch with r alone may get, uncompressed, by
// the upper bound that the Java producer uses
// (AbstractRecords.estimateSizeInBytesUpperBound of magic 2).
func (r *record) estimate() int {
	const (
		batchOverhead  = 61 // DefaultRecordBatch.RECORD_BATCH_OVERHEAD
		recordOverhead = 21 // DefaultRecord.MAX_RECORD_OVERHEAD
	)
	n := batchOverhead + recordOverhead + lengthSize(len(r.kafka.Key)) + len(r.kafka.Key) +
		lengthSize(len(r.kafka.Value)) + len(r.kafka.Value) + lengthSize(len(r.kafka.Headers))
	for i := range r.kafka.Headers {
		h := &r.kafka.Headers[i]
		n += lengthSize(len(h.Key)) + len(h.Key) + lengthSize(len(h.Value)) + len(h.Value)
	}
	return n
}

// lengthSize is how many bytes n takes as a zig-zag varint.
func lengthSize(n int) int {
	size := 1
	for v := uint64(n) << 1; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// Deadline implements [context.Context].
func (*record) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context].
func (*record) Done() <-chan struct{} { return nil }

// Err implements [context.Context].
func (*record) Err() error { return nil }

// Value implements [context.Context].
func (*record) Value(any) any { return nil }

var _ context.Context = (*record)(nil)
