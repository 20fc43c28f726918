package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
)

// repeats says whether a row may lie downstream more than once.
type repeats int

const (
	once       repeats = iota // for a downstream without faults
	repeatable                // for one with: a sink that retries may send a row twice
)

// landed compares what lies downstream with the journal: every row that settled
// nil is there, with its own bytes; nothing is there that was not published;
// and the first occurrences of each key are in order. A row that settled with
// an error may be there.
func (j *journal) landed(ctx context.Context, r repeats) error {
	found, err := j.found(ctx)
	if err != nil {
		return err
	}
	seen := make(map[int]bool)
	newest := make(map[stream]int)
	for _, c := range found {
		if seen[c.number] {
			if r == once {
				return fmt.Errorf("message %d of %v is downstream twice", c.number, c.stream)
			}
			continue
		}
		seen[c.number] = true
		if last, ok := newest[c.stream]; ok && c.key != "" && c.number < last {
			return fmt.Errorf("message %d of %v lies downstream behind message %d", c.number, c.stream, last)
		}
		newest[c.stream] = c.number
	}
	return j.present(found)
}

// settledLanded is landed without the order, for the time between a refused
// unit and the replay: what settled with an error may lie there with gaps.
func (j *journal) settledLanded(ctx context.Context) error {
	found, err := j.found(ctx)
	if err != nil {
		return err
	}
	return j.present(found)
}

// finally holds when all rows were published and replayed: the last occurrences
// of each key are in order, and the last record of it is its last row.
func (j *journal) finally(ctx context.Context) error {
	found, err := j.found(ctx)
	if err != nil {
		return err
	}
	place := make(map[int]int) // row → where it lies last
	for i, c := range found {
		place[c.number] = i
	}
	rows := make(map[stream]int) // stream → its row before
	last := make(map[stream]int) // stream → where it ends
	for i, c := range found {
		last[c.stream] = i
	}
	for _, c := range j.rows() {
		at, ok := place[c.number]
		if !ok {
			return fmt.Errorf("message %d of %v is not downstream", c.number, c.stream)
		}
		if before, ok := rows[c.stream]; ok && c.key != "" && place[before] > at {
			return fmt.Errorf("message %d of %v lies downstream behind message %d for good", before, c.stream, c.number)
		}
		rows[c.stream] = c.number
	}
	for s, number := range rows {
		if s.key != "" && last[s] != place[number] {
			return fmt.Errorf("the last record of %v is message %d, and not %d", s, found[last[s]].number, number)
		}
	}
	return nil
}

// present returns an error unless all that settled nil is in found.
func (j *journal) present(found []*call) error {
	there := make(map[int]bool, len(found))
	for _, c := range found {
		there[c.number] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.calls {
		if c.settled && c.err == nil && !there[c.number] {
			return fmt.Errorf("message %d of %v settled nil, but is not downstream", c.number, c.stream)
		}
	}
	return nil
}

// rows are the calls without the replays.
func (j *journal) rows() []*call {
	var rows []*call
	for i, c := range j.calls {
		if c.number == i {
			rows = append(rows, c)
		}
	}
	return rows
}

// found returns the rows downstream, in its order.
func (j *journal) found(ctx context.Context) ([]*call, error) {
	records, err := j.rig.Landed(ctx)
	if err != nil {
		return nil, fmt.Errorf("read what landed: %w", err)
	}
	found := make([]*call, 0, len(records))
	for _, record := range records {
		c, err := j.find(record)
		if err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, nil
}

// find returns the row that record carries.
func (j *journal) find(record Record) (*call, error) {
	digits, _, _ := bytes.Cut(record.Value, []byte(" "))
	number, err := strconv.Atoi(string(digits))
	if err != nil || number < 0 || number >= len(j.calls) {
		return nil, fmt.Errorf("a record of topic %s was never published", record.Topic)
	}
	c := j.calls[number]
	if !bytes.Equal(c.value, record.Value) || c.topic != record.Topic || c.key != string(record.Key) || (c.key == "") != (record.Key == nil) {
		return nil, fmt.Errorf("message %d of %v is downstream with other bytes, or as another's", number, c.stream)
	}
	return c, nil
}
