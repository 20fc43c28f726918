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
	"github.com/outrider-cdc/outrider/relay"
)

// Every fault of make chaos, once, two side by side, the majors taking turns.
//
// The other packages' tests share the machine: make chaos, which has it alone,
// holds the relay to its promises of time by the second.
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
		a := &chaos.Arena{Binary: bin, Dir: t.TempDir(), Timeout: 3 * time.Second, Rate: 600, Step: 45 * time.Second, Patience: 2, Log: discard()}
		t.Cleanup(a.Close)
		arenas <- a
	}
	majors := []int{15, 18}
	for i, f := range chaos.Faults() {
		if !only.MatchString(f.Name) {
			continue
		}
		major := majors[i%2]
		if !f.On(major) {
			major = f.Majors[0]
		}
		for _, delivery := range deliveries(f) {
			t.Run(f.Name+" "+delivery, func(t *testing.T) {
				t.Parallel()
				a := <-arenas
				defer func() { arenas <- a }()
				a.Delivery = delivery
				strike(t, a, f, major)
			})
		}
	}
}

// Events that are messages keep the promises that rows keep, as long as the slot
// lives: sessions that end inside a transaction, refused rows.
func TestStreamUnderFaults(t *testing.T) {
	a := &chaos.Arena{Binary: binary(t), Dir: t.TempDir(), Timeout: 3 * time.Second, Rate: 600, Step: 45 * time.Second, Patience: 2, Stream: true, Log: discard()}
	t.Cleanup(a.Close)
	for _, f := range chaos.Faults() {
		if !regexp.MustCompile("^(relay-killed|walsender-killed|rows-refused)$").MatchString(f.Name) {
			continue
		}
		for _, delivery := range []string{relay.AtLeastOnce, relay.ExactlyOnce} {
			t.Run(f.Name+" "+delivery, func(t *testing.T) {
				a.Delivery = delivery
				strike(t, a, f, 18)
			})
		}
	}
}

// alsoExactly are the faults of both deliveries that are tried under both here;
// make chaos tries all.
const alsoExactly = "^(relay-killed|walsender-killed|first-start|failover|broker-killed|kafka-reset|relay-frozen|rows-refused)$"

// deliveries are those under which a fault is tried; TEST_CHAOS_DELIVERY names another for all.
func deliveries(f chaos.Fault) []string {
	switch {
	case f.Exactly:
		return []string{relay.ExactlyOnce}
	case os.Getenv("TEST_CHAOS_DELIVERY") != "":
		return []string{os.Getenv("TEST_CHAOS_DELIVERY")}
	case regexp.MustCompile(alsoExactly).MatchString(f.Name):
		return []string{relay.AtLeastOnce, relay.ExactlyOnce}
	}
	return []string{relay.AtLeastOnce}
}

func strike(t *testing.T, a *chaos.Arena, f chaos.Fault, major int) {
	t.Helper()
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
}
