package relay

import "testing"

const (
	historyOf2 = "1\t0/3000000\tno recovery target specified\n"
	historyOf3 = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n"
	otherOf3   = "1\t0/2000000\tno recovery target specified\n"
)

// Timelines are a tree: only a descendant may be streamed from.
func TestHistories(t *testing.T) {
	at := func(timeline int32, history string) here { return here{"1", timeline, history} }
	for _, c := range []struct {
		name      string
		now, then here
		want      bool
	}{
		{"the same", at(1, ""), at(1, ""), true},
		{"promoted", at(2, historyOf2), at(1, ""), true},
		{"promoted twice", at(3, historyOf3), at(1, ""), true},
		{"promoted once more", at(3, historyOf3), at(2, historyOf2), true},
		{"an old primary", at(1, ""), at(2, historyOf2), false},
		{"a sibling", at(3, otherOf3), at(2, historyOf2), false},
		{"another of the same number", at(3, otherOf3), at(3, historyOf3), false},
	} {
		if got := c.now.descends(c.then); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
	if at, ok := at(3, historyOf3).leftAt(2); !ok || at != 0x5000000 {
		t.Errorf("timeline 2 was left at %s, %t", at, ok)
	}
}

func TestSnapshots(t *testing.T) {
	s, err := parseSnapshot("10:20:12,15")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint64]bool{9: true, 10: true, 12: false, 14: true, 15: false, 19: true, 20: false, 99: false} {
		if s.sees(xid) != want {
			t.Errorf("sees(%d) is %t", xid, !want)
		}
	}
	far, err := parseSnapshot("8589934600:8589934610:") // two epochs and a little
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint32]uint64{12: 8589934604, 4294967290: 8589934586} {
		if got := far.widen(xid); got != want {
			t.Errorf("widen(%d) is %d, want %d", xid, got, want)
		}
	}
	if got := normalSnapshot("30:20:"); got != "30:30:" {
		t.Errorf("normal form is %s", got)
	}
	for _, bad := range []string{"", "1", "1:2", "a:2:", "1:b:", "1:2:c"} {
		if _, err := parseSnapshot(bad); err == nil {
			t.Errorf("%q is taken for a snapshot", bad)
		}
	}
}

// The double entry: what the stream brought, by the marks that see it.
func TestTally(t *testing.T) {
	snap := func(text string) *snapshot {
		s, err := parseSnapshot(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	tl := newTally()
	tl.add(5, 1) // before the first mark
	if _, complete := tl.move(snap("10:10:")); complete {
		t.Error("a session's first mark is taken for complete")
	}
	tl.forgive(1)
	tl.add(8, 9)  // seen by the newest mark
	tl.add(12, 2) // of the next
	tl.add(30, 4) // of a later one
	if seen, complete := tl.move(snap("20:20:")); seen != 9 || !complete {
		t.Errorf("first interval: %d rows, complete %t", seen, complete)
	}
	if seen, _ := tl.move(snap("40:40:")); seen != 11 {
		t.Errorf("second: %d rows in all", seen)
	}
	if seen, _ := tl.move(snap("50:50:")); seen != 15 {
		t.Errorf("third: %d rows in all", seen)
	}
}
