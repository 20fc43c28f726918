package relay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// snapshot is a pg_snapshot: which transactions had ended when it was taken.
type snapshot struct {
	text       string
	xmin, xmax uint64
	running    []uint64 // sorted; between xmin and xmax
}

// parseSnapshot reads the text form, xmin:xmax:xip,xip.
func parseSnapshot(text string) (*snapshot, error) {
	bad := func() error { return fmt.Errorf("%q is not a pg_snapshot", text) }
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return nil, bad()
	}
	s := &snapshot{text: text}
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return nil, bad()
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return nil, bad()
	}
	for x := range strings.SplitSeq(parts[2], ",") {
		if x == "" {
			continue
		}
		xid, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return nil, bad()
		}
		s.running = append(s.running, xid)
	}
	slices.Sort(s.running)
	return s, nil
}

// sees is pg_visible_in_snapshot.
func (s *snapshot) sees(xid uint64) bool {
	if xid < s.xmin || xid >= s.xmax {
		return xid < s.xmin
	}
	_, running := slices.BinarySearch(s.running, xid)
	return !running
}

// widen makes a 32-bit xid, as Begin carries it, a 64-bit one: the nearest to xmax.
func (s *snapshot) widen(xid uint32) uint64 {
	return s.xmax + uint64(int64(int32(xid-uint32(s.xmax))))
}

// normalSnapshot lifts xmax to xmin. An exported snapshot may come out with
// xmin above xmax, and type pg_snapshot refuses its own text then.
func normalSnapshot(text string) string {
	s, err := parseSnapshot(text)
	if err != nil || s.xmin <= s.xmax {
		return text
	}
	_, list, _ := strings.Cut(text, ":")
	_, list, _ = strings.Cut(list, ":")
	return fmt.Sprintf("%d:%d:%s", s.xmin, s.xmin, list)
}
