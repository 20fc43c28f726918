package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consume reads a topic from its start until the job's rows are there, and says
// how old they were by the header outrider-committed-at when they came.
func consume(ctx context.Context, j job, ready func() error) (report, error) {
	isolation := kgo.ReadUncommitted()
	if j.Committed {
		isolation = kgo.ReadCommitted()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(j.Brokers...), kgo.FetchIsolationLevel(isolation),
		kgo.ConsumeTopics(j.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		return report{}, err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return report{}, err
	}
	if err := ready(); err != nil {
		return report{}, err
	}
	s := samples{skip: j.Skip}
	rows := 0
	for rows < j.Rows {
		fetches := client.PollFetches(ctx)
		now := time.Now()
		if err := fetches.Err(); err != nil {
			return report{}, err
		}
		for it := fetches.RecordIter(); !it.Done(); rows++ {
			at, err := commitTime(it.Next())
			if err != nil {
				return report{}, err
			}
			s.add(now.Sub(at))
		}
	}
	return report{Rows: rows, Latency: s.latency()}, nil
}

var errNoTime = errors.New("record without header " + committedAt)

func commitTime(r *kgo.Record) (time.Time, error) {
	for _, h := range r.Headers {
		if h.Key == committedAt {
			at, err := time.Parse(timeFormat, string(h.Value))
			if err != nil {
				return at, fmt.Errorf("read header %s: %w", committedAt, err)
			}
			return at, nil
		}
	}
	return time.Time{}, errNoTime
}
