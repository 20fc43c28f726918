package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// screen prints what happens, one line each, with the seconds since the start
// before it. Its methods may be called from any goroutine.
type screen struct {
	mu      sync.Mutex
	out     io.Writer
	colours bool
	every   time.Duration // at most one arrival in this time is shown
	began   time.Time
	shown   time.Time // the last arrival
	skipped int       // arrivals since
}

// Colours of a terminal, as SGR codes.
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	red    = "1;31"
	green  = "32"
	yellow = "33"
)

// newScreen shows a few arrivals a second on a terminal, one a second where the
// output goes to a log, and each of them with all.
func newScreen(out io.Writer, terminal, all bool) *screen {
	s := &screen{out: out, every: time.Second, began: time.Now()}
	if terminal {
		s.every = 250 * time.Millisecond
		s.colours = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if all {
		s.every = 0
	}
	return s
}

// begin sets the clock to zero.
func (s *screen) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
}

// say prints a line of the play.
func (s *screen) say(colour, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(s.paint(colour, fmt.Sprintf(format, args...)))
}

// text prints lines as they are.
func (s *screen) text(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range lines {
		_, _ = fmt.Fprintln(s.out, line)
	}
}

// arrival shows one arrival of many: where it lies, whose order it is, and how
// long it took from the commit to here.
func (s *screen) arrival(r *chaos.Record, took time.Duration, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.shown) < s.every {
		s.skipped++
		return
	}
	place := fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)
	time := fmt.Sprintf("%10s", "again")
	if first {
		time = s.paint(colourOf(took), fmt.Sprintf("%10s", short(took)))
	}
	more := ""
	if s.skipped > 0 {
		more = s.paint(dim, fmt.Sprintf("  and %d more", s.skipped))
	}
	s.line(fmt.Sprintf("%-15s %s %-6s %6s %s%s", place, r.Type, r.Key, fmt.Sprintf("#%d", r.N), time, more))
	s.shown, s.skipped = now, 0
}

func colourOf(took time.Duration) string {
	switch {
	case took < 50*time.Millisecond:
		return green
	case took < time.Second:
		return yellow
	}
	return red
}

// line needs the lock.
func (s *screen) line(text string) {
	_, _ = fmt.Fprintf(s.out, "%s  %s\n", s.paint(dim, fmt.Sprintf("%5.1fs", time.Since(s.began).Seconds())), text)
}

func (s *screen) paint(colour, text string) string {
	if !s.colours || colour == plain {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// short is a duration with the digits that a person wants.
func short(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
