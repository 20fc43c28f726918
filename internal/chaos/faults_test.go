package chaos_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// Every fault of make chaos, once, two side by side, the majors taking turns.
//
// TEST_CHAOS_FAULTS is a regular expression for their names.
func TestEveryFault(t *testing.T) {
	only, err := regexp.Compile(os.Getenv("TEST_CHAOS_FAULTS"))
	if err != nil {
		t.Fatal(err)
	}
	bin := binary(t)
	arenas := make(chan *chaos.Arena, 2)
	for range cap(arenas) {
		a := &chaos.Arena{Binary: bin, Dir: t.TempDir(), Timeout: 3 * time.Second, Rate: 600, Delivery: os.Getenv("TEST_CHAOS_DELIVERY"), Step: 45 * time.Second, Log: discard()}
		t.Cleanup(a.Close)
		arenas <- a
	}
	majors := []int{15, 18}
	for i, f := range chaos.Faults() {
		major := majors[i%2]
		if !f.On(major) {
			major = f.Majors[0]
		}
		if !only.MatchString(f.Name) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			a := <-arenas
			defer func() { arenas <- a }()
			began := time.Now()
			r := a.Repeat(t.Context(), f, major, uint64(began.UnixNano()))
			if errors.Is(r.Err, postgres.ErrNoBuild) || errors.Is(r.Err, kafka.ErrNoBuild) || errors.Is(r.Err, postgres.ErrShared) || errors.Is(r.Err, kafka.ErrShared) {
				harness.Missing(t, r.Err)
			}
			t.Logf("Postgres %s, seed %d, took %s, void before: %q\n%s\n%s\nflowing after %s", r.Postgres, r.Seed,
				time.Since(began).Round(time.Millisecond), r.Voids, r.Evidence, r.Report, r.Flowing.Round(time.Millisecond))
			if r.Err == nil {
				return
			}
			t.Error(r.Err)
			for _, log := range []string{"relay-1.log", "relay-2.log"} {
				if text, err := os.ReadFile(filepath.Join(r.Folder, log)); err == nil {
					t.Logf("end of %s:\n%s", log, text[max(0, len(text)-6000):])
				}
			}
		})
	}
}
