package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The bare producer sends what the relay would send for the rows of load.go:
// same topic, keys, sizes and headers, by the same client with the same
// settings. Making a record costs it a copy of a template.

// timeFormat is that of the header outrider-committed-at.
const (
	timeFormat      = "2006-01-02T15:04:05.000000Z07:00"
	timeFormatWidth = len("2006-01-02T15:04:05.000000Z")
	committedAt     = "outrider-committed-at"
)

// slab is how many records are allocated at once.
const slab = 512

type producer struct {
	client *kgo.Client
	topic  string
	failed atomic.Pointer[error]

	values  [256][]byte // templates of payloads
	records []kgo.Record
	headers []kgo.RecordHeader
	bytes   []byte
	now     []byte // text of a time, shared by the records of a slab
}

// produce sends the job's records, as fast as it can or at the job's rate, and
// returns when all are acknowledged. begin is called when a broker has answered.
func produce(ctx context.Context, j job, begin func() error) (report, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(j.Brokers...),
		// As in the relay's sink.
		kgo.MetadataMinAge(250*time.Millisecond), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(budget/512+1),
	)
	if err != nil {
		return report{}, err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return report{}, err
	}
	p := newProducer(client, j.Topic)
	if err := begin(); err != nil {
		return report{}, err
	}
	start := time.Now()
	for n := range j.Rows {
		if j.Rate > 0 {
			if err := pauseUntil(ctx, start.Add(time.Duration(n)*time.Second/time.Duration(j.Rate))); err != nil {
				return report{}, err
			}
		}
		if n%slab == 0 || j.Rate > 0 {
			p.stamp(time.Now())
		}
		client.Produce(ctx, p.record(n), p.promise)
	}
	if err := client.Flush(ctx); err != nil {
		return report{}, err
	}
	if err := p.failed.Load(); err != nil {
		return report{}, *err
	}
	return report{Rows: j.Rows}, nil
}

// pauseUntil returns at once if the time is over: whoever is late catches up.
func pauseUntil(ctx context.Context, at time.Time) error {
	if d := time.Until(at); d > 0 {
		return pause(ctx, d)
	}
	return nil
}

func newProducer(client *kgo.Client, topic string) *producer {
	p := &producer{client: client, topic: topic}
	random := rand.NewChaCha8([32]byte{})
	for i := range p.values {
		noise := make([]byte, (payloadSize-len(`{"order":"0000000000","text":""}`))/2)
		_, _ = random.Read(noise) // never fails
		p.values[i] = fmt.Appendf(nil, `{"order":"0000000000","text":"%s"}`, hex.EncodeToString(noise))
	}
	return p
}

func (p *producer) promise(_ *kgo.Record, err error) {
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
}

// stamp sets the time of the records to come. It is a new slice: records that
// wait in the client still hold the old one.
func (p *producer) stamp(now time.Time) {
	p.now = now.UTC().AppendFormat(make([]byte, 0, timeFormatWidth), timeFormat)
}

const (
	sampleID       = "01999999-9999-7999-8999-990000000000"
	samplePosition = "0000000000000000.0000000000000000"
	longestKey     = "order-9999"
	recordBytes    = len(longestKey) + payloadSize + len(sampleID) + len(samplePosition) + len(eventType)
	sampleSource   = "7000000000000000000.1.bench_batch_kafka_1.0"
)

// record makes the n-th record.
func (p *producer) record(n int) *kgo.Record {
	const headers = 5
	key := "order-" + strconv.Itoa(n%keys)
	if len(p.records) == 0 {
		p.records = make([]kgo.Record, slab)
		p.headers = make([]kgo.RecordHeader, slab*headers)
		p.bytes = make([]byte, slab*recordBytes)
	}
	r, h := &p.records[0], p.headers[:headers:headers]
	p.records, p.headers = p.records[1:], p.headers[headers:]
	take := func(text string) []byte {
		b := p.bytes[:len(text):len(text)]
		p.bytes = p.bytes[copy(b, text):]
		return b
	}
	id, position := take(sampleID), take(samplePosition)
	number(id[len(id)-10:], n)
	number(position[len(position)-10:], n)
	r.Topic, r.Key = p.topic, take(key)
	r.Value = p.bytes[:payloadSize:payloadSize]
	p.bytes = p.bytes[copy(r.Value, p.values[n%len(p.values)]):]
	number(r.Value[len(`{"order":"`):len(`{"order":"0000000000`)], n)
	h[0] = kgo.RecordHeader{Key: "id", Value: id}
	h[1] = kgo.RecordHeader{Key: "type", Value: take(eventType)}
	h[2] = kgo.RecordHeader{Key: "outrider-position", Value: position}
	h[3] = kgo.RecordHeader{Key: "outrider-source", Value: []byte(sampleSource)}
	h[4] = kgo.RecordHeader{Key: committedAt, Value: p.now}
	r.Headers = h
	return r
}

// number writes n right-aligned into digits.
func number(digits []byte, n int) {
	for i := len(digits) - 1; i >= 0 && n > 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
}
