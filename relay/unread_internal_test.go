package relay

import (
	"testing"
	"time"
)

// A server that goes down asks again as soon as it is answered. One that is
// merely careful asks once in half its timeout, and one that still sends is not
// going down.
func TestRepliesRecogniseAServerGoingDown(t *testing.T) {
	start := time.Unix(1000, 0)
	type ask struct {
		after time.Duration
		lsn   LSN
	}
	for name, tc := range map[string]struct {
		asks []ask
		down bool
	}{
		"one request":                 {[]ask{{0, 5}}, false},
		"three at once":               {[]ask{{0, 5}, {50 * time.Millisecond, 5}, {100 * time.Millisecond, 5}}, true},
		"three in a second":           {[]ask{{0, 5}, {500 * time.Millisecond, 5}, {time.Second, 5}}, true},
		"half a timeout apart":        {[]ask{{0, 5}, {1500 * time.Millisecond, 5}, {3 * time.Second, 5}, {4500 * time.Millisecond, 5}}, false},
		"new WAL between":             {[]ask{{0, 5}, {50 * time.Millisecond, 6}, {100 * time.Millisecond, 7}, {150 * time.Millisecond, 8}}, false},
		"going down, then new WAL":    {[]ask{{0, 5}, {1, 5}, {2, 5}, {3, 6}}, false},
		"still asking after a second": {[]ask{{0, 5}, {1, 5}, {2, 5}, {3 * time.Second, 5}}, true},
	} {
		var r replies
		for _, a := range tc.asks {
			r.asked(a.lsn, start.Add(a.after))
			if !r.owed {
				t.Errorf("%s: a request is not owed an answer", name)
			}
		}
		if r.shutdown() != tc.down {
			t.Errorf("%s: going down is %v, want %v", name, r.shutdown(), tc.down)
		}
	}
}
