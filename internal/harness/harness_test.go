package harness_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// fake notes how a test was ended.
type fake struct {
	testing.TB
	skipped, failed bool
}

func (f *fake) Helper()               {}
func (f *fake) Skip(...any)           { f.skipped = true; runtime.Goexit() }
func (f *fake) Fatalf(string, ...any) { f.failed = true; runtime.Goexit() }

func TestMissing(t *testing.T) {
	for value, want := range map[string]fake{"": {skipped: true}, "1": {failed: true}} {
		t.Setenv(harness.RequireServers, value)
		f := fake{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			harness.Missing(&f, errors.New("no server"))
			t.Error("the test goes on")
		}()
		<-done
		if f != want {
			t.Errorf("%s=%q: skipped %v, failed %v", harness.RequireServers, value, f.skipped, f.failed)
		}
	}
}
