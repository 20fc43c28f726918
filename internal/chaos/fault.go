package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Fault is something that happens to a relay, its servers, or what is between them.
type Fault struct {
	Name        string
	Description string // one line
	Majors      []int  // of Postgres, on which it can happen; nil: all
	Nodes       int    // of Kafka; 0 is 1
	Relays      int    // that run before it; 0 is 1
	Budget      int    // OUTRIDER_MAX_IN_FLIGHT_BYTES of the relays; 0 is defaultBudget
	Cold        bool   // no relay has run before, the first one is the fault's to start
	Moves       bool   // Postgres becomes another server
	Compacted   bool   // the topic is compacted, at once and all the time; no row lacks a key
	Repeats     bool   // also exactly-once, what was published since the last mark may come twice: the slot is lost
	Exactly     bool   // it is a fault of exactly-once only
	Properties  string // of the brokers, comma-separated name=value; a cluster of its own is started with them
	Recovers    bool   // a relay must read rows from the table afterwards, under a new generation

	// within is how soon after Over rows must flow, given the sender's timeout; nil: any time.
	within func(timeout time.Duration) time.Duration

	// strike is Strike. It calls Stage.Over when rows could flow again.
	strike func(ctx context.Context, s *Stage) (evidence string, err error)
}

const defaultBudget = 8 << 20

// On reports whether the fault can happen on that major of Postgres.
func (f Fault) On(major int) bool { return f.Majors == nil || slices.Contains(f.Majors, major) }

// Strike does the harm on a stage where rows flow, and returns the evidence
// that it was done; the error wraps ErrVoid if it was not.
func (f Fault) Strike(ctx context.Context, s *Stage) (evidence string, err error) {
	return f.strike(ctx, s)
}

// Faults returns all faults, in the order of the table.
func Faults() []Fault {
	return slices.Concat(relayFaults(), takeoverFaults(), postgresFaults(), kafkaFaults(), poisonFaults(), transactionFaults(), slotFaults(), publicationFaults(), failoverFaults(), identityFaults())
}

// void is the error of a fault that did not bite.
func void(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrVoid, fmt.Sprintf(format, args...))
}

// between draws a duration.
func (s *Stage) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.Rand.Int64N(int64(high-low)))
}
