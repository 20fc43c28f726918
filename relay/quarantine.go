package relay

import (
	"maps"
	"slices"
	"sync"
)

// quarantine finds the rows that the sink refuses among those that it gave back
// with them. A broker refuses whole batches, and what was sent behind one comes
// back with it, so that a refusal names suspects only. Of those, half are
// published by themselves and waited for, then half of what is left: a trial
// that is refused halves the suspects, one that is not clears its half. A row
// that is refused alone is condemned. So the bad one of n rows is found in about
// log2(n) refusals, each of which ends a session, and nothing else of its
// partition is sent past the others.
//
// It outlives sessions. Of Run's goroutine; within a leadership the stream's.
type quarantine struct {
	source   string     // under which the positions are meant
	suspects []Position // ascending
	limit    int        // most suspects of a trial; 0: no limit
	size     int        // suspects in the trial under way; 0: none
	until    Position   // the last of them

	verdicts  []verdict          // of this source, by position
	elsewhere map[string]verdict // by id: rows at which a relay waited under another source
	stubs     map[Position]bool  // rows whose dead letter was refused as well
}

// verdict is what is known of a refused row, as the table dead has it.
type verdict struct {
	source   string
	position Position
	id       string
	state    string
}

// begin starts a leadership: what is known of refused rows, and what was
// refused in the one before.
func (q *quarantine) begin(source string, verdicts []verdict, refused []Position) {
	if q.source != source {
		*q = quarantine{source: source}
	}
	q.verdicts, q.elsewhere = nil, nil
	for _, v := range verdicts {
		switch {
		case v.source == source:
			q.verdicts = append(q.verdicts, v)
		case v.id != "":
			if q.elsewhere == nil {
				q.elsewhere = map[string]verdict{}
			}
			q.elsewhere[v.id] = v
		}
	}
	slices.SortFunc(q.verdicts, func(a, b verdict) int { return a.position.compare(b.position) })
	if len(refused) > 0 {
		if q.limit = 0; q.size > 0 {
			q.limit = max(1, q.size/2) // also where other rows were refused than those of the trial: it must come to an end
		}
		slices.SortFunc(refused, Position.compare)
		q.suspects = slices.Compact(refused)
	}
	q.size = 0
}

// idle reports whether rows need no look.
func (q *quarantine) idle() bool {
	return len(q.suspects) == 0 && len(q.verdicts) == 0 && len(q.elsewhere) == 0
}

// halted reports whether a row is known at which the relay has to wait.
func (q *quarantine) halted() bool {
	return waits(q.verdicts) || waits(slices.Collect(maps.Values(q.elsewhere)))
}

func waits(verdicts []verdict) bool {
	return slices.ContainsFunc(verdicts, func(v verdict) bool { return v.state == deadHalted })
}

// over reports whether the trial under way has no more rows before at, which the
// stream has reached: the last one may be downstream already and not come again.
func (q *quarantine) over(at Position) bool { return q.size > 0 && q.until.before(at) }

// passed ends the trial under way: the sink took all of it.
func (q *quarantine) passed() {
	n := 0
	for n < len(q.suspects) && !q.until.before(q.suspects[n]) {
		n++
	}
	q.suspects = q.suspects[n:]
	q.limit *= 2
	q.size = 0
}

// reach forgets what lies before at: those rows are downstream.
func (q *quarantine) reach(at Position) {
	for q.size == 0 && len(q.suspects) > 0 && q.suspects[0].before(at) {
		q.suspects = q.suspects[1:]
	}
	if len(q.suspects) == 0 {
		q.limit = 0
	}
	for len(q.verdicts) > 0 && q.verdicts[0].position.before(at) {
		q.verdicts = q.verdicts[1:]
	}
}

func (q *quarantine) suspected(at Position) bool {
	_, ok := slices.BinarySearchFunc(q.suspects, at, Position.compare)
	return ok
}

// try begins a trial; the stream stands at the first suspect, and nothing is in flight.
func (q *quarantine) try() {
	q.size = (len(q.suspects) + 1) / 2
	if q.limit > 0 {
		q.size = min(q.size, q.limit)
	}
	q.until = q.suspects[q.size-1]
}

// known is what was found about m before.
func (q *quarantine) known(m *Message) (verdict, bool) {
	if len(q.verdicts) > 0 && q.verdicts[0].position == m.Position {
		return q.verdicts[0], true
	}
	v, ok := q.elsewhere[string(m.ID)]
	return v, ok
}

// forget drops a verdict that was carried out.
func (q *quarantine) forget(v verdict) {
	delete(q.elsewhere, v.id)
	q.verdicts = slices.DeleteFunc(q.verdicts, func(have verdict) bool { return have == v })
}

// note remembers that the dead letter of the row at p was refused.
func (q *quarantine) note(p Position) {
	if q.stubs == nil {
		q.stubs = map[Position]bool{}
	}
	q.stubs[p] = true
}

// refusals are the positions of rows that a sink refused in one session. Its
// goroutines write them.
type refusals struct {
	mu sync.Mutex
	at []Position
}

func (r *refusals) add(p Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, p)
}

// take returns them, once.
func (r *refusals) take() []Position {
	if r == nil { // there was no session before
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.at
	r.at = nil
	return at
}
