package main

import (
	"slices"
	"time"
)

// samples are times from a commit to somebody's hands.
type samples struct {
	skip int // so many at first do not count
	all  []time.Duration
}

func (s *samples) add(d time.Duration) {
	if s.skip > 0 {
		s.skip--
		return
	}
	s.all = append(s.all, d)
}

// latency is what samples say, in milliseconds.
type latency struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// latency returns nil if there are no samples.
func (s *samples) latency() *latency {
	n := len(s.all)
	if n == 0 {
		return nil
	}
	slices.Sort(s.all)
	at := func(percent int) float64 { return milliseconds(s.all[min(n*percent/100, n-1)]) }
	return &latency{Count: n, P50: at(50), P99: at(99), Max: at(100)}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
