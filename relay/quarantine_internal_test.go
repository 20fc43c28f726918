package relay

import (
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-cdc/outrider/internal/secret"
)

// A broker that refuses whatever comes in one batch with a bad row, and
// everything behind it: every bad row is condemned, nobody else is, all others
// arrive in order, and each bad one costs about log2(n) sessions.
func TestQuarantineFindsTheBadRows(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.IntN(10_000)
		bad := map[uint64]bool{}
		for range 1 + rng.IntN(4) {
			bad[uint64(rng.IntN(n))] = true
		}
		var q quarantine
		var refused []Position
		var arrived []uint64
		condemned := map[uint64]bool{}
		next, sessions := uint64(0), 0
		for ; next < uint64(n); sessions++ {
			if sessions > 4*(bits.Len(uint(n))+3) {
				t.Fatalf("seed %d: %d rows, %d bad: still searching after %d sessions", seed, n, len(bad), sessions)
			}
			q.begin("s", nil, refused)
			next, refused = runTrials(&q, next, uint64(n), rng, bad, condemned, &arrived)
		}
		if len(condemned) != len(bad) || len(arrived)+len(bad) != n || !slices.IsSorted(arrived) {
			t.Fatalf("seed %d: condemned %v, bad %v, %d of %d arrived, in order: %v", seed, condemned, bad, len(arrived), n, slices.IsSorted(arrived))
		}
		q.begin("s", nil, nil)
		if q.reach(Position{2, 0}); !q.idle() || q.limit != 0 {
			t.Fatalf("seed %d: left over: %+v", seed, q)
		}
	}
}

// runTrials is a session, as the stream and a sink would do it: it returns where
// the next one begins, and what was refused.
func runTrials(q *quarantine, from, to uint64, rng *rand.Rand, bad, condemned map[uint64]bool, arrived *[]uint64) (uint64, []Position) {
	var flight []uint64
	drain := func() (refused []Position) { // batches of random size
		for len(flight) > 0 {
			size := min(len(flight), 1+rng.IntN(500))
			if slices.ContainsFunc(flight[:size], func(o uint64) bool { return bad[o] }) {
				size = min(len(flight), size+rng.IntN(500))
				for _, o := range flight[:size] {
					refused = append(refused, Position{1, o})
				}
				return refused
			}
			*arrived = append(*arrived, flight[:size]...)
			flight = flight[size:]
		}
		return nil
	}
	settled := func() uint64 {
		if len(flight) > 0 {
			return flight[0]
		}
		return to
	}
	for o := from; o < to; o++ {
		at := Position{1, o}
		if q.idle() {
			flight = append(flight, o)
			continue
		}
		q.reach(at)
		if !q.suspected(at) {
			flight = append(flight, o)
			continue
		}
		if q.size == 0 {
			if refused := drain(); refused != nil {
				return settled(), refused
			}
			q.try()
		}
		flight = append(flight, o)
		if at != q.until {
			continue
		}
		alone := q.size == 1
		refused := drain()
		switch {
		case refused == nil:
			q.passed()
		case alone:
			condemned[o] = true
			return o + 1, refused
		default:
			return settled(), refused
		}
	}
	if refused := drain(); refused != nil {
		return settled(), refused
	}
	return to, nil
}

// A trial whose last row is downstream already and does not come again ends all the same.
func TestQuarantineTrialWithoutItsLastRow(t *testing.T) {
	var q quarantine
	q.begin("s", nil, []Position{{1, 3}, {1, 1}, {1, 2}, {1, 3}, {2, 0}})
	q.reach(Position{1, 1})
	q.try()
	if q.until != (Position{1, 2}) || q.over(Position{1, 2}) || !q.over(Position{1, 3}) {
		t.Fatalf("trial of two ends at %v", q.until)
	}
	q.passed()
	if q.suspected(Position{1, 2}) || !q.suspected(Position{1, 3}) || !q.suspected(Position{2, 0}) {
		t.Errorf("suspects left: %v", q.suspects)
	}
	q.begin("s", nil, nil) // a session that ended for another reason
	if len(q.suspects) != 2 {
		t.Errorf("suspects forgotten: %v", q.suspects)
	}
	q.begin("another", nil, nil)
	if !q.idle() {
		t.Errorf("suspects of another source kept: %v", q.suspects)
	}
}

// A search gets on with each session, so the pauses between them do not grow: it
// would take them for most of its time.
func TestSearchDoesNotSlowDown(t *testing.T) {
	r, err := New(Config{
		Name: "test", DatabaseURL: secret.New("postgres://localhost/test"), Publication: "p", Table: "s.t", Schema: "s",
		MaxInFlightBytes: 1 << 20, WALSenderTimeout: time.Second, ShutdownTimeout: time.Second,
	}, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for attempt := range 100 {
		if wait := r.sorted(fmt.Errorf("refused: %w", ErrPoison), attempt); wait <= 0 || wait >= 2*backoffMin {
			t.Fatalf("pause %d is %s", attempt, wait)
		}
	}
	if s := r.Status(); s.Role != RoleWaiting || s.Reason != "poison_search" {
		t.Errorf("role %s, reason %s", s.Role, s.Reason)
	}
}
