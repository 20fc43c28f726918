package harness

import (
	"testing"
	"time"
)

// Await polls until f returns nil. The test ends with what f said last, if that
// takes longer than within.
func Await(tb testing.TB, within time.Duration, f func() error) {
	tb.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("after %s: %v", within, err)
		}
		<-tick.C
	}
}
