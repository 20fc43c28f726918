package relay

import (
	"encoding/binary"
	"testing"
	"time"
)

// What the snapshot at hand sees passes without a query: this stream has no
// connection to send one on. Ids are those of Begin, 32 bits of them, around the
// end of an epoch.
func TestGateAtTheEndOfAnEpoch(t *testing.T) {
	newest, err := parseSnapshot("8589934590:8589934600:8589934593") // two epochs end at 8589934592
	if err != nil {
		t.Fatal(err)
	}
	s := testStream(t, settling{})
	s.gate = &gate{relay: s.relay, newest: newest, taken: time.Now()}
	s.mustHandle(t, wireRelation(7))
	row := wireInsert(7, uuidBytes, "orders", "k1", "T", `{"a":1}`, "", "")
	for i, xid := range []uint32{4294967280, 4294967294, 4294967295, 0, 2, 7} {
		begin := wireBegin(10 * (i + 1))
		binary.BigEndian.PutUint32(begin[len(begin)-4:], xid)
		s.mustHandle(t, begin, row, wireCommit(10*(i+1)))
		if got := s.flight.acked.Load(); got != int64(i+1) {
			t.Errorf("%d rows are published after that of transaction %d, want %d", got, xid, i+1)
		}
	}
	for _, xid := range []uint32{1, 8, 1000, 1 << 30} { // running, or begun since
		if s.gate.sees(xid) {
			t.Errorf("transaction %d passes", xid)
		}
	}
}

// A snapshot of long ago says nothing: ids may have come around meanwhile.
func TestGateForgetsOldSnapshots(t *testing.T) {
	g := &gate{newest: &snapshot{xmin: 10, xmax: 10}, taken: time.Now()}
	if g.age(); !g.sees(9) {
		t.Error("a new snapshot is forgotten")
	}
	g.taken = time.Now().Add(-gateKeeps - time.Second)
	if g.age(); g.sees(9) {
		t.Error("an old snapshot still counts")
	}
	(*gate)(nil).age() // no gate is configured
}
