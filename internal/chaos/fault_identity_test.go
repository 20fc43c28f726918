package chaos_test

import (
	"testing"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// setBack is a run whose database was set back to before the last row of a key,
// which is on Kafka. It returns the indices of that record, the phantom, and of
// the first one of an earlier row of the key.
func setBack(t *testing.T, seed uint64) (h *chaos.History, earlier, lost int) {
	t.Helper()
	h = newWorld(seed).clone()
	newest := map[string]int64{}
	for _, row := range h.Committed {
		newest[row.Key] = max(newest[row.Key], row.N)
	}
	for _, p := range pairs(h) {
		if rec := h.Records[p[1]]; rec.N == newest[rec.Key] {
			earlier, lost = p[0], p[1]
		}
	}
	if lost == 0 {
		t.Fatalf("seed %d: no key has two rows", seed)
	}
	id := h.Records[lost].ID
	h.Vanished = append(h.Vanished, id)
	h.Committed = without(h.Committed, func(r chaos.Row) bool { return r.ID == id })
	if h.Table != nil {
		h.Table = without(h.Table, func(t chaos.ID) bool { return t == id })
	}
	return h, earlier, lost
}

func without[T any](s []T, gone func(T) bool) (rest []T) {
	for _, e := range s {
		if !gone(e) {
			rest = append(rest, e)
		}
	}
	return rest
}

// A record of a row that the database has lost is no ghost, and may be the last of its key.
func TestPhantomsAreNamed(t *testing.T) {
	for seed := range uint64(worlds) {
		h, _, _ := setBack(t, seed)
		r := chaos.Verify(*h)
		if err := r.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.Phantoms == 0 {
			t.Fatalf("seed %d: %s", seed, r)
		}
		h.Vanished = nil
		if r := chaos.Verify(*h); r.Ghosts.Count == 0 {
			t.Fatalf("seed %d: nobody committed the row and nobody lost it: %s", seed, r)
		}
	}
}

// A phantom that comes when a newer row of its key was there is one that a relay
// took from the database that is no more.
func TestPhantomAfterANewerRowIsCaught(t *testing.T) {
	for seed := range uint64(worlds) {
		h, earlier, lost := setBack(t, seed)
		late := h.Records[lost]
		late.N = h.Records[earlier].N
		end(h, late)
		r := chaos.Verify(*h)
		if r.OutOfOrder.Count == 0 || r.LastValueErrors.Count == 0 {
			t.Fatalf("seed %d: %s", seed, r)
		}
	}
}

// A row that has vanished excuses no other.
func TestVanishedRowsExcuseNoLoss(t *testing.T) {
	h, earlier, _ := setBack(t, 1)
	id := h.Records[earlier].ID
	h.Records = without(h.Records, func(r chaos.Record) bool { return r.ID == id })
	if r := chaos.Verify(*h); r.Lost.Count != 1 {
		t.Fatalf("%s", r)
	}
}
