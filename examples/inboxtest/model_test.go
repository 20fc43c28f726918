package inboxtest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-cdc/outrider/outbox/inbox"
)

// The model is a relay that does everything that Outrider may do to the logs of
// a topic, and nothing else. It keeps its own clock, which begins weeks ago.

// row is a row of an outbox.
type row struct {
	id        string
	key       string // "": none
	lsn       int    // of its commit
	created   time.Time
	committed time.Time
	service   int
	dead      bool // goes to the topic of dead letters instead
	retried   bool
}

// entry is what lies in a partition's log.
type entry struct {
	row      *row
	source   string
	position string
	stamp    time.Time
	dead     bool
}

// service is an application with its outbox and the relay that serves it.
type service struct {
	number     int
	rows       []*row // in commit order
	generation int
	timeline   int
	confirmed  int // rows that the slot will not send again
	mark       int // rows that a recovery will not send again
	session    []*flow
}

// flow is one leadership of a relay: for each partition what it has yet to send,
// in order. Partitions progress each at its own pace.
type flow struct {
	source  string
	sent    int // rows of the service that were handed to the sink
	queue   map[int][]entry
	settled map[*row]bool
}

// history is one run of the model.
type history struct {
	random     *rand.Rand
	now        time.Time
	partitions int
	keyless    bool // rows without key occur
	foreign    bool // ids that are no UUID of version 7 occur
	services   []*service
	logs       map[int][]entry // by partition
	dead       []entry         // the only partition of the topic of dead letters
	done       map[string]int  // what happened, for evidence
	lsn        int
	made       int
	catchUp    func() // the consumer reads all that there is
}

// overlap is how old a row can be when it comes again under a new source, setBack
// how far an offset is set back where only ids tell, unread for how long records
// may be unread: ids are kept for the sum, and an hour.
const (
	overlap = 24 * time.Hour
	setBack = 24 * time.Hour
	unread  = 21 * time.Hour
	keep    = overlap + setBack + unread + time.Hour
)

func newHistory(seed uint64) *history {
	h := &history{random: rand.New(rand.NewPCG(seed, 7)), now: time.Now().Add(-40 * 24 * time.Hour), logs: map[int][]entry{}, done: map[string]int{}}
	h.partitions = 1 + h.random.IntN(3)
	h.keyless, h.foreign = h.random.IntN(3) == 0, h.random.IntN(4) == 0
	for i := range 1 + h.random.IntN(2) {
		s := &service{number: i, timeline: 1, generation: 1}
		h.services = append(h.services, s)
		h.lead(s, 0)
	}
	return h
}

func (h *history) one(n int) bool { return h.random.IntN(n) == 0 }

// write commits rows.
func (h *history) write() {
	s := h.services[h.random.IntN(len(h.services))]
	for range 1 + h.random.IntN(12) {
		h.now = h.now.Add(time.Duration(h.random.IntN(2000)) * time.Millisecond)
		h.made++
		r := &row{id: v7(h.now, h.made), key: fmt.Sprint("k", h.random.IntN(12)), service: s.number, created: h.now, dead: h.one(40)}
		if h.keyless && h.one(5) {
			r.key = ""
		}
		if h.foreign && h.one(3) {
			r.id = fmt.Sprintf("order-%d-%d", s.number, h.made)
		}
		if h.one(20) { // a long transaction
			h.now = h.now.Add(time.Duration(h.random.IntN(600)) * time.Second)
		}
		h.commit(s, r)
	}
}

func (h *history) commit(s *service, r *row) {
	h.lsn += 1 + h.random.IntN(3)
	r.lsn, r.committed = h.lsn, h.now
	s.rows = append(s.rows, r)
}

// place is where a record goes now.
func (h *history) place(r *row) int {
	if r.key == "" {
		return h.random.IntN(h.partitions)
	}
	n := 0
	for _, c := range r.key {
		n = n*31 + int(c)
	}
	return n % h.partitions
}

// lead begins a leadership that goes on from row number from.
func (h *history) lead(s *service, from int) {
	f := &flow{source: fmt.Sprintf("7%d.%d.slot.%d", s.number, s.timeline, s.generation), sent: from, queue: map[int][]entry{}, settled: map[*row]bool{}}
	if len(s.session) > 0 && h.one(2) { // it remembers what was settled
		f.settled = s.session[len(s.session)-1].settled
	}
	s.session = append(s.session, f)
}

func (s *service) leader() *flow { return s.session[len(s.session)-1] }

// enqueue hands rows up to number to to the sink of the leader.
func (h *history) enqueue(s *service, to int) {
	f := s.leader()
	for ; f.sent < to; f.sent++ {
		r := s.rows[f.sent]
		if f.settled[r] {
			continue
		}
		e := entry{row: r, source: f.source, position: fmt.Sprintf("%016X.%016X", r.lsn, 0), stamp: r.committed, dead: r.dead}
		p := h.place(r)
		if r.dead {
			p = -1
		}
		f.queue[p] = append(f.queue[p], e)
	}
}

// send lets a partition of a leadership progress; of a former one, too: what it
// had handed to Kafka may still arrive.
func (h *history) send(s *service, f *flow, most int) {
	for _, p := range slices.Sorted(mapKeys(f.queue)) {
		q := f.queue[p]
		n := h.random.IntN(min(len(q), most) + 1)
		for _, e := range q[:n] {
			if p < 0 {
				h.dead = append(h.dead, e)
			} else {
				h.logs[p] = append(h.logs[p], e)
			}
			if f == s.leader() && !h.one(4) { // else the answer is lost
				f.settled[e.row] = true
			}
		}
		f.queue[p] = q[n:]
	}
	h.confirm(s)
}

// confirm moves what the slot keeps to the unbroken settled prefix, now and then.
func (h *history) confirm(s *service) {
	f := s.leader()
	for s.confirmed < f.sent && (f.settled[s.rows[s.confirmed]] || len(f.queue) > 0 && f.idle()) {
		s.confirmed++
	}
	if h.one(2) {
		s.mark = s.confirmed
	}
}

func (f *flow) idle() bool {
	for _, q := range f.queue {
		if len(q) > 0 {
			return false
		}
	}
	return true
}

// restart is a crash and a start, or a takeover: all that is not confirmed comes again in order.
func (h *history) restart(s *service) {
	h.done["restart"]++
	h.lead(s, s.confirmed)
}

// promote is a failover with a synchronized slot: the same rows under another timeline.
func (h *history) promote(s *service) {
	h.done["promotion"]++
	s.timeline++
	s.generation++
	h.lead(s, s.confirmed)
	s.leader().settled = map[*row]bool{}
}

// recover is a lost slot, or a republish: what the table holds since the last
// mark, or of a day, comes from there, under positions of its own, then the stream.
func (h *history) recover(s *service) {
	h.done["recovery"]++
	s.generation++
	from := s.mark
	if h.one(3) {
		h.done["republish"]++
		for from > 0 && h.now.Sub(s.rows[from-1].committed) < overlap {
			from--
		}
	}
	h.lead(s, len(s.rows))
	f := s.leader()
	f.settled = map[*row]bool{}
	base := h.lsn
	h.lsn++
	for seq, r := range s.rows[from:] {
		p := h.place(r)
		if r.dead {
			p = -1
		}
		f.queue[p] = append(f.queue[p], entry{row: r, source: f.source, position: fmt.Sprintf("%016X.%016X", base, seq), stamp: r.created, dead: r.dead})
	}
	s.mark = min(s.mark, from)
	s.confirmed = len(s.rows)
	// Until the rows are out a crash begins the backlog again: the model lets it pay at once, in part.
	h.drain(s, f)
}

func (h *history) drain(s *service, f *flow) {
	for !f.idle() {
		h.send(s, f, 30)
	}
}

// retry puts a dead letter at the end of the stream under its id; once or twice
// the topic had it all the same, since only the answer was lost.
func (h *history) retry(s *service) {
	for _, r := range s.rows[:s.confirmed] {
		if r.dead && !r.retried {
			h.done["retry"]++
			r.retried = true
			again := *r
			again.dead, again.created = false, h.now
			h.commit(s, &again)
			return
		}
	}
	if s.confirmed > 0 && h.one(2) {
		r := s.rows[s.confirmed-1]
		if h.now.Sub(r.committed) < overlap {
			h.done["retry of a row that had arrived"]++
			again := *r
			again.dead, again.created = false, h.now
			h.commit(s, &again)
		}
	}
}

// grow adds a partition: keys move, also between those that were there.
func (h *history) grow(s *service) {
	if h.partitions < 5 {
		h.done["partition added"]++
		h.partitions++
	}
	h.restart(s)
}

// step is one thing that happens on the side of the relays.
func (h *history) step() {
	s := h.services[h.random.IntN(len(h.services))]
	switch n := h.random.IntN(40); {
	case n < 12:
		h.write()
	case n < 24:
		h.enqueue(s, min(len(s.rows), s.leader().sent+h.random.IntN(20)))
		h.send(s, s.leader(), 12)
	case n < 27:
		h.restart(s)
	case n < 29: // a zombie
		if len(s.session) > 1 {
			f := s.session[len(s.session)-2]
			if !f.idle() {
				h.done["zombie"]++
			}
			h.send(s, f, 6)
		}
	case n < 31:
		h.recover(s)
	case n < 32:
		h.promote(s)
	case n < 34:
		h.retry(s)
	case n < 35:
		h.grow(s)
	case n < 38:
		h.jump()
	default:
		h.write()
		h.enqueue(s, len(s.rows))
	}
}

// jump is a pause: of days, when all is quiet, or while records are unread.
func (h *history) jump() {
	for _, s := range h.services { // a lease has ended long before
		s.session = s.session[len(s.session)-1:]
	}
	if h.one(3) {
		h.now = h.now.Add(time.Duration(h.random.IntN(20)) * time.Hour)
		h.catchUp()
		return
	}
	h.finish()
	h.catchUp()
	h.now = h.now.Add(time.Duration(h.random.IntN(90)) * time.Hour)
}

// settle lets everything through.
func (h *history) settle(s *service) {
	h.enqueue(s, len(s.rows))
	h.drain(s, s.leader())
	for s.confirmed < len(s.rows) {
		s.confirmed++
	}
	s.mark = s.confirmed
}

// finish lets everything through, everywhere.
func (h *history) finish() {
	for _, s := range h.services {
		h.settle(s)
	}
}

// record is what a consumer gets.
func (e entry) record(topic string, partition int, offset int64) inbox.Record {
	headers := []string{
		"id=" + e.row.id, "outrider-source=" + e.source, "outrider-position=" + e.position,
		"outrider-committed-at=" + e.stamp.UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
	}
	if e.dead {
		headers = append(headers, "outrider-dead-topic=orders")
	}
	r := record(int32(partition), e.row.key, headers...)
	r.Topic, r.Offset = topic, offset
	return r
}

func mapKeys[V any](m map[int]V) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
