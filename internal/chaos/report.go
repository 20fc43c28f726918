package chaos

import (
	"errors"
	"fmt"
	"strings"
)

// ErrVoid means that nothing is wrong, and that the run proves nothing either:
// no two writers met on a key, or nothing was committed.
var ErrVoid = errors.New("void run")

// Finding is one kind of broken promise.
type Finding struct {
	Count    int
	Examples []string // the first few
}

const maxExamples = 5

func (f *Finding) add(format string, args ...any) {
	f.Count++
	if len(f.Examples) < maxExamples {
		f.Examples = append(f.Examples, fmt.Sprintf(format, args...))
	}
}

// Report is what Verify found.
type Report struct {
	Committed     int // rows
	Delivered     int // committed rows that are on Kafka at least once
	Records       int
	KeyContention int
	Samples       int
	Phantoms      int // records of rows that the database has lost since: no promise is about them but that no newer row of the key comes before them
	ExactlyOnce   bool

	Lost            Finding // committed, or in the table, and not on Kafka
	Ghosts          Finding // on Kafka and never committed
	OutOfOrder      Finding // first occurrences of a key not in commit order
	LastValueErrors Finding // last record of a key is not the last committed one
	Duplicates      Finding // occurrences after the first
	Corrupted       Finding // topic, key, type, value or headers differ
	MissingHeaders  Finding
	PositionErrors  Finding // outrider-position does not name the row, or does not grow along the commit order
	ConfirmedEarly  Finding // the slot had passed a commit that was not on Kafka yet, or the progress row
	Hanging         Finding // partitions in which a transaction is still open: readers of committed records wait behind it
	Unsound         Finding // the history contradicts itself: the run's fault, not the relay's
}

// kind names a finding in Err and String.
type kind struct {
	name    string
	finding *Finding
}

// broken are the findings that break a promise.
func (r *Report) broken() []kind {
	kinds := []kind{
		{"lost", &r.Lost},
		{"ghosts", &r.Ghosts},
		{"out of order", &r.OutOfOrder},
		{"last value wrong", &r.LastValueErrors},
		{"corrupted", &r.Corrupted},
		{"headers missing", &r.MissingHeaders},
		{"positions wrong", &r.PositionErrors},
		{"confirmed early", &r.ConfirmedEarly},
		{"transactions left open", &r.Hanging},
		{"history unsound", &r.Unsound},
	}
	if r.ExactlyOnce {
		kinds = append(kinds, kind{"duplicates", &r.Duplicates})
	}
	return kinds
}

// Err is nil if every promise was kept in a run that put them to the test. It
// wraps ErrVoid if the run did not.
func (r Report) Err() error {
	var b strings.Builder
	for _, k := range r.broken() {
		if k.finding.Count == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %d", k.name, k.finding.Count)
		for _, e := range k.finding.Examples {
			b.WriteString("\n  " + e)
		}
	}
	switch {
	case b.Len() > 0:
		return fmt.Errorf("promises broken (%s):%s", r, b.String())
	case r.Committed == 0:
		return fmt.Errorf("%w: nothing was committed", ErrVoid)
	case r.KeyContention == 0:
		return fmt.Errorf("%w: no two writers met on a key", ErrVoid)
	}
	return nil
}

// String is the report in one line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "committed %d, delivered %d", r.Committed, r.Delivered)
	for _, k := range r.broken() {
		if k.name != "duplicates" {
			fmt.Fprintf(&b, ", %s %d", k.name, k.finding.Count)
		}
	}
	if r.Phantoms > 0 {
		fmt.Fprintf(&b, ", phantoms %d", r.Phantoms)
	}
	fmt.Fprintf(&b, ", duplicates %d, key contention %d, samples %d", r.Duplicates.Count, r.KeyContention, r.Samples)
	return b.String()
}
