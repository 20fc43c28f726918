package main

import (
	"slices"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// tally knows of each order when it was committed and when its event arrived.
// Services and consumer share it.
type tally struct {
	mu      sync.Mutex
	waiting map[chaos.ID]time.Time // not arrived yet: when COMMIT was sent
	trips   []trip
	again   int // arrivals after the first

	committed  []chaos.Row
	rolledBack []chaos.ID
	meetings   int // services that met on a customer
}

// trip is the way of one event. It begins when COMMIT is sent, not when the
// service has its answer: the event may be the faster of the two.
type trip struct{ sent, arrived time.Time }

func (t trip) took() time.Duration { return t.arrived.Sub(t.sent) }

func newTally() *tally { return &tally{waiting: map[chaos.ID]time.Time{}} }

// sending notes that COMMIT is about to be sent.
func (t *tally) sending(id chaos.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[id] = time.Now()
}

// commit notes that the answer to COMMIT was yes.
func (t *tally) commit(row chaos.Row, met bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = append(t.committed, row)
	if met {
		t.meetings++
	}
}

// rollback notes that a transaction was rolled back.
func (t *tally) rollback(id chaos.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rolledBack = append(t.rolledBack, id)
}

// arrive notes that an event arrived, and returns how long it took; first is
// false for one that had arrived before.
func (t *tally) arrive(id chaos.ID) (took time.Duration, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sent, ok := t.waiting[id]
	if !ok {
		t.again++
		return 0, false
	}
	delete(t.waiting, id)
	way := trip{sent, time.Now()}
	t.trips = append(t.trips, way)
	return way.took(), true
}

// state returns how many orders were committed, how many of their events have
// arrived, and how many arrivals were repetitions.
func (t *tally) state() (committed, delivered, again int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.committed), len(t.trips), t.again
}

// owes reports whether an event is still to come whose COMMIT was sent before then.
func (t *tally) owes(then time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, sent := range t.waiting {
		if sent.Before(then) {
			return true
		}
	}
	return false
}

// ids are those of all committed orders.
func (t *tally) ids() []chaos.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]chaos.ID, len(t.committed))
	for i, row := range t.committed {
		ids[i] = row.ID
	}
	return ids
}

// outage is a time in which something was away, up to when all was made good.
type outage struct {
	name     string
	from, to time.Time
}

// touches reports whether t was on its way while o lasted.
func (o outage) touches(t trip) bool { return t.sent.Before(o.to) && t.arrived.After(o.from) }

// latency is how long the events of one part of the run took.
type latency struct {
	name          string
	count         int
	p50, p90, p99 time.Duration
}

// latencies tells the quiet times from the outages, which count together if they
// have one name. An event that two of them touched counts for the first.
func (t *tally) latencies(outages []outage) []latency {
	names, took := []string{"undisturbed"}, map[string][]time.Duration{}
	for _, o := range outages {
		if !slices.Contains(names, o.name) {
			names = append(names, o.name)
		}
	}
	t.mu.Lock()
	for _, way := range t.trips {
		name := names[0]
		if i := slices.IndexFunc(outages, func(o outage) bool { return o.touches(way) }); i >= 0 {
			name = outages[i].name
		}
		took[name] = append(took[name], way.took())
	}
	t.mu.Unlock()
	list := make([]latency, len(names))
	for i, name := range names {
		all := took[name]
		slices.Sort(all)
		list[i] = latency{name, len(all), percentile(all, 50), percentile(all, 90), percentile(all, 99)}
	}
	return list
}

// percentile is the smallest of sorted that p percent do not exceed; 0 of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
