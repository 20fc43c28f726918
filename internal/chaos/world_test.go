package chaos_test

import (
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

const (
	worldPartitions = 3
	worldSource     = "7000.1.outrider_test.1"
	worldServer     = "7000.1"
)

// world is a synthetic run: transactions in commit order, and a relay that
// keeps its promises, crashes included.
type world struct {
	rng       *rand.Rand
	rows      []chaos.Row
	positions []chaos.Position
	opens     []bool // the row is the first of its transaction
	history   chaos.History
	ends      map[chaos.Partition]int64
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), ends: map[chaos.Partition]int64{}}
	w.commit()
	w.relay()
	w.history.KeyContention = 1
	w.history.Table = []chaos.ID{}
	for _, row := range w.rows {
		w.history.Table = append(w.history.Table, row.ID)
	}
	return w
}

func (w *world) id() (id chaos.ID) {
	for i := range id {
		id[i] = byte(w.rng.Uint32())
	}
	return id
}

func (w *world) commit() {
	counters, lsn := map[string]int64{}, uint64(1000)
	for range 30 + w.rng.IntN(30) {
		lsn += 100 + w.rng.Uint64N(100)
		for ordinal := range 1 + w.rng.IntN(5) {
			row := chaos.Row{ID: w.id(), Content: chaos.Content{
				Topic: fmt.Sprintf("topic-%d", w.rng.IntN(2)), Type: "made", Value: w.rng.Uint64(), Headers: w.rng.Uint64(),
			}}
			if w.rng.IntN(10) > 0 {
				row.Keyed, row.Key = true, fmt.Sprintf("k%d", w.rng.IntN(6))
				counters[row.Key]++
				row.N = counters[row.Key]
			}
			if w.rng.IntN(8) == 0 {
				row.Tombstone, row.Value = true, 0
			}
			w.rows = append(w.rows, row)
			w.positions = append(w.positions, chaos.Position{LSN: lsn, Ordinal: uint64(ordinal)})
			w.opens = append(w.opens, ordinal == 0)
		}
		w.history.RolledBack = append(w.history.RolledBack, w.id())
	}
	w.history.Committed = w.rows
}

func (w *world) partition(row chaos.Row) chaos.Partition {
	return chaos.Partition{Topic: row.Topic, Index: int32(chaos.Hash([]byte(row.Key)) % worldPartitions)}
}

// publish leaves gaps between the offsets, as aborted transactions and
// compaction do; tests put records there.
func (w *world) publish(i int) {
	p := w.partition(w.rows[i])
	w.ends[p] += 10
	w.history.Records = append(w.history.Records, chaos.Record{
		Content: w.rows[i].Content, ID: w.rows[i].ID, Partition: p.Index, Offset: w.ends[p],
		Source: worldSource, Position: w.positions[i],
	})
}

// relay publishes everything in commit order. When it crashes, partitions had
// come to different points beyond what was settled, and everything from there
// on is published again.
func (w *world) relay() {
	settled := 0
	for settled < len(w.rows) {
		until := min(settled+1+w.rng.IntN(20), len(w.rows))
		if w.rng.IntN(3) == 0 {
			came := map[chaos.Partition]int{}
			for i := settled; i < until; i++ {
				p := w.partition(w.rows[i])
				if _, drawn := came[p]; !drawn {
					came[p] = settled + w.rng.IntN(until-settled+1)
				}
				if i < came[p] {
					w.publish(i)
				}
			}
			continue
		}
		for until < len(w.rows) && !w.opens[until] {
			until++
		}
		for i := settled; i < until; i++ {
			w.publish(i)
		}
		settled = until
		if settled < len(w.rows) {
			// The end of a commit may be the very start of the next one.
			w.sample(w.positions[settled].LSN)
		}
	}
}

func (w *world) sample(confirmed uint64) {
	s := chaos.Sample{Server: worldServer, Confirmed: confirmed, Durable: confirmed, Ends: map[chaos.Partition]int64{}}
	for p, last := range w.ends {
		s.Ends[p] = last + 10
	}
	w.history.Samples = append(w.history.Samples, s)
}

// clone lets a test break a history without touching the world's.
func (w *world) clone() *chaos.History {
	h := w.history
	h.Committed = append([]chaos.Row(nil), h.Committed...)
	h.Records = append([]chaos.Record(nil), h.Records...)
	h.RolledBack = append([]chaos.ID(nil), h.RolledBack...)
	h.Table = append([]chaos.ID(nil), h.Table...)
	h.Samples = append([]chaos.Sample(nil), h.Samples...)
	for i := range h.Samples {
		h.Samples[i].Ends = maps.Clone(h.Samples[i].Ends)
	}
	return &h
}
