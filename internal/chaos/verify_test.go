package chaos_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// worlds is how many random runs each property is tried on.
const worlds = 60

func TestKeptPromisesPass(t *testing.T) {
	duplicates := 0
	for seed := range uint64(worlds) {
		w := newWorld(seed)
		r := chaos.Verify(w.history)
		if err := r.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.Committed != len(w.rows) || r.Delivered != r.Committed || r.Duplicates.Count != r.Records-r.Delivered {
			t.Fatalf("seed %d: counts are wrong: %s", seed, r)
		}
		duplicates += r.Duplicates.Count
	}
	if duplicates == 0 {
		t.Fatal("no run had a duplicate: the worlds are too kind")
	}
}

func TestRunWithoutEvidenceIsVoid(t *testing.T) {
	h := newWorld(1).clone()
	h.KeyContention = 0
	if err := chaos.Verify(*h).Err(); !errors.Is(err, chaos.ErrVoid) {
		t.Errorf("no writers met: got %v, want ErrVoid", err)
	}
	if err := chaos.Verify(chaos.History{KeyContention: 1}).Err(); !errors.Is(err, chaos.ErrVoid) {
		t.Errorf("nothing committed: got %v, want ErrVoid", err)
	}
}

// firsts are the indices of first occurrences, in order.
func firsts(h *chaos.History) []int {
	seen, out := map[chaos.ID]bool{}, []int(nil)
	for i := range h.Records {
		if id := h.Records[i].ID; !seen[id] {
			seen[id] = true
			out = append(out, i)
		}
	}
	return out
}

// pairs are first occurrences of two rows of one key, the earlier one first.
func pairs(h *chaos.History) (out [][2]int) {
	last := map[[2]string]int{}
	for _, i := range firsts(h) {
		rec := h.Records[i]
		if !rec.Keyed {
			continue
		}
		k := [2]string{rec.Topic, rec.Key}
		if before, ok := last[k]; ok {
			out = append(out, [2]int{before, i})
		}
		last[k] = i
	}
	return out
}

func pick[T any](rng *rand.Rand, s []T) T { return s[rng.IntN(len(s))] }

// end appends a copy of a record to its partition.
func end(h *chaos.History, rec chaos.Record) {
	for _, other := range h.Records {
		if other.Topic == rec.Topic && other.Partition == rec.Partition {
			rec.Offset = max(rec.Offset, other.Offset+1)
		}
	}
	h.Records = append(h.Records, rec)
}

// breach is a relay that breaks one promise, and where the report must say so.
type breach struct {
	name  string
	make  func(rng *rand.Rand, h *chaos.History)
	found func(r chaos.Report) chaos.Finding
}

func altered(name string, found func(chaos.Report) chaos.Finding, alter func(*chaos.Record)) breach {
	return breach{name, func(rng *rand.Rand, h *chaos.History) { alter(&h.Records[pick(rng, firsts(h))]) }, found}
}

func (b breach) check(t *testing.T) {
	for seed := range uint64(worlds) {
		w := newWorld(seed)
		h := w.clone()
		b.make(w.rng, h)
		r := chaos.Verify(*h)
		if f := b.found(r); f.Count == 0 || len(f.Examples) == 0 {
			t.Fatalf("seed %d: not found: %s", seed, r)
		}
		if err := r.Err(); err == nil || errors.Is(err, chaos.ErrVoid) {
			t.Fatalf("seed %d: Err is %v", seed, err)
		}
	}
}

func TestBrokenPromisesAreFound(t *testing.T) {
	for _, b := range slices.Concat(lossAndOrder(), contents(), positionsAndConfirmation(), unsound()) {
		t.Run(b.name, b.check)
	}
}

func lossAndOrder() []breach {
	lost := func(r chaos.Report) chaos.Finding { return r.Lost }
	ghosts := func(r chaos.Report) chaos.Finding { return r.Ghosts }
	order := func(r chaos.Report) chaos.Finding { return r.OutOfOrder }
	lastValue := func(r chaos.Report) chaos.Finding { return r.LastValueErrors }
	return []breach{
		{"drops a row", func(rng *rand.Rand, h *chaos.History) {
			id := pick(rng, h.Records).ID
			h.Records = slices.DeleteFunc(h.Records, func(r chaos.Record) bool { return r.ID == id })
		}, lost},
		{"drops a row that nobody journalled", func(_ *rand.Rand, h *chaos.History) {
			h.Table = append(h.Table, chaos.ID{1})
		}, lost},
		{"swaps two rows of a key", func(rng *rand.Rand, h *chaos.History) {
			p := pick(rng, pairs(h))
			a, b := &h.Records[p[0]], &h.Records[p[1]]
			*a, *b = *b, *a
			a.Offset, b.Offset = b.Offset, a.Offset
		}, order},
		{"changes the partition of a key", func(rng *rand.Rand, h *chaos.History) {
			rec := h.Records[pick(rng, pairs(h))[1]]
			rec.Partition = worldPartitions
			end(h, rec)
		}, order},
		{"repeats a row when it promised not to", func(rng *rand.Rand, h *chaos.History) {
			h.ExactlyOnce = true
			end(h, pick(rng, h.Records))
		}, func(r chaos.Report) chaos.Finding { return r.Duplicates }},
		{"publishes a rolled-back row", func(rng *rand.Rand, h *chaos.History) {
			rec := pick(rng, h.Records)
			rec.ID, rec.Keyed = pick(rng, h.RolledBack), false
			end(h, rec)
		}, ghosts},
		{"publishes a row of nobody", func(rng *rand.Rand, h *chaos.History) {
			rec := pick(rng, h.Records)
			rec.ID, rec.Keyed = chaos.ID{2}, false
			end(h, rec)
		}, ghosts},
		{"sends an old value last", func(rng *rand.Rand, h *chaos.History) {
			end(h, h.Records[pick(rng, pairs(h))[0]])
		}, lastValue},
		{"ends a key with a ghost", func(rng *rand.Rand, h *chaos.History) {
			rec := h.Records[pick(rng, pairs(h))[1]]
			rec.ID = pick(rng, h.RolledBack)
			end(h, rec)
		}, lastValue},
		{"drops the last row of a key", func(_ *rand.Rand, h *chaos.History) {
			id := h.Records[slices.Max(lasts(h))].ID
			h.Records = slices.DeleteFunc(h.Records, func(r chaos.Record) bool { return r.ID == id })
		}, lastValue},
	}
}

// lasts are the indices of the last record of each key.
func lasts(h *chaos.History) (out []int) {
	last := map[[2]string]int{}
	for i, rec := range h.Records {
		if rec.Keyed {
			last[[2]string{rec.Topic, rec.Key}] = i
		}
	}
	for _, i := range last {
		out = append(out, i)
	}
	return out
}

func contents() []breach {
	corrupted := func(r chaos.Report) chaos.Finding { return r.Corrupted }
	missing := func(r chaos.Report) chaos.Finding { return r.MissingHeaders }
	return []breach{
		altered("corrupts a value", corrupted, func(r *chaos.Record) { r.Value++ }),
		altered("makes a tombstone a value or the other way round", corrupted, func(r *chaos.Record) { r.Tombstone = !r.Tombstone }),
		altered("corrupts a key", corrupted, func(r *chaos.Record) { r.Key += "x" }),
		altered("makes an empty key null or the other way round", corrupted, func(r *chaos.Record) { r.Keyed = !r.Keyed }),
		altered("sends to the wrong topic", corrupted, func(r *chaos.Record) { r.Topic = "topic-9" }),
		altered("changes the type", corrupted, func(r *chaos.Record) { r.Type = "" }),
		altered("changes the counter", corrupted, func(r *chaos.Record) { r.N++ }),
		altered("changes the row's headers", corrupted, func(r *chaos.Record) { r.Headers++ }),
		altered("leaves out the id", missing, func(r *chaos.Record) { r.ID, r.Missing = chaos.ID{}, chaos.MissingID }),
		altered("leaves out the position", missing, func(r *chaos.Record) { r.Missing = chaos.MissingPosition }),
		altered("leaves out the source", missing, func(r *chaos.Record) { r.Missing = chaos.MissingSource }),
	}
}

func positionsAndConfirmation() []breach {
	positions := func(r chaos.Report) chaos.Finding { return r.PositionErrors }
	early := func(r chaos.Report) chaos.Finding { return r.ConfirmedEarly }
	return []breach{
		{"gives two rows of a key their positions the wrong way round", func(rng *rand.Rand, h *chaos.History) {
			p := pick(rng, pairs(h))
			a, b := &h.Records[p[0]], &h.Records[p[1]]
			a.Position, b.Position = b.Position, a.Position
		}, positions},
		{"gives two rows one position", func(rng *rand.Rand, h *chaos.History) {
			f := firsts(h)
			h.Records[f[0]].Position = h.Records[f[1+rng.IntN(len(f)-1)]].Position
		}, positions},
		{"repeats a row under another position", func(rng *rand.Rand, h *chaos.History) {
			rec := pick(rng, h.Records)
			rec.Position.Ordinal += 100
			end(h, rec)
		}, positions},
		{"confirms before the row is on Kafka", func(rng *rand.Rand, h *chaos.History) {
			rec := h.Records[pick(rng, firsts(h))]
			s := chaos.Sample{Server: worldServer, Confirmed: rec.Position.LSN + 1, Ends: map[chaos.Partition]int64{}}
			for _, other := range h.Records {
				s.Ends[chaos.Partition{Topic: other.Topic, Index: other.Partition}] = 1 << 40
			}
			s.Ends[chaos.Partition{Topic: rec.Topic, Index: rec.Partition}] = rec.Offset
			h.Samples = append(h.Samples, s)
		}, early},
		{"confirms before the progress row says so", func(rng *rand.Rand, h *chaos.History) {
			h.Samples[rng.IntN(len(h.Samples))].Durable--
		}, early},
	}
}

func unsound() []breach {
	found := func(r chaos.Report) chaos.Finding { return r.Unsound }
	return []breach{
		{"journal forgets a row", func(rng *rand.Rand, h *chaos.History) {
			i := rng.IntN(len(h.Committed))
			h.Committed = slices.Delete(h.Committed, i, i+1)
		}, found},
		{"journal has a row that the table has not", func(rng *rand.Rand, h *chaos.History) {
			i := rng.IntN(len(h.Table))
			h.Table = slices.Delete(h.Table, i, i+1)
		}, found},
		{"counter repeats", func(rng *rand.Rand, h *chaos.History) {
			id := h.Records[pick(rng, pairs(h))[1]].ID
			i := slices.IndexFunc(h.Committed, func(r chaos.Row) bool { return r.ID == id })
			h.Committed[i].N--
		}, found},
		{"row both committed and rolled back", func(rng *rand.Rand, h *chaos.History) {
			h.RolledBack = append(h.RolledBack, pick(rng, h.Committed).ID)
		}, found},
		{"reader goes backwards", func(rng *rand.Rand, h *chaos.History) {
			h.Records = append(h.Records, pick(rng, h.Records))
		}, found},
	}
}

// A relay that crashed publishes again from where it was settled; a consumer
// sees old values for a while, which is allowed, and the newest one at the end.
func TestReplayOfAKeyPasses(t *testing.T) {
	for seed := range uint64(worlds) {
		w := newWorld(seed)
		for i := range w.rows {
			w.publish(i)
		}
		r := chaos.Verify(w.history)
		if err := r.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.Duplicates.Count < len(w.rows) {
			t.Fatalf("seed %d: %d duplicates, want at least %d", seed, r.Duplicates.Count, len(w.rows))
		}
	}
}

func TestParseHeaders(t *testing.T) {
	id, ok := chaos.ParseID("0190c1f2-7a3b-7c4d-8e5f-00112233aabb")
	if !ok || id.String() != "0190c1f2-7a3b-7c4d-8e5f-00112233aabb" {
		t.Errorf("got %v, %v", id, ok)
	}
	for _, bad := range []string{"", "0190c1f27a3b7c4d8e5f00112233aabb", "0190c1f2-7a3b-7c4d-8e5f-00112233aabg"} {
		if _, ok := chaos.ParseID(bad); ok {
			t.Errorf("id %q was taken", bad)
		}
	}
	p, ok := chaos.ParsePosition("00000000016B3748.000000000000000A")
	if want := (chaos.Position{LSN: 0x16B3748, Ordinal: 10}); !ok || p != want {
		t.Errorf("got %v, %v", p, ok)
	}
	for _, bad := range []string{"", "16B3748.A", "00000000016B3748", "00000000016B3748.00000000000000000A", "0000000001 B3748.000000000000000A"} {
		if _, ok := chaos.ParsePosition(bad); ok {
			t.Errorf("position %q was taken", bad)
		}
	}
}
