package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// defect is how the model below goes wrong.
type defect int

const (
	sound         defect = iota
	reorders             // sends the messages of a unit in another order
	drops                // settles nil without sending
	forgets              // never settles
	settlesTwice         // settles again in the next Publish
	acksAfterward        // settles nil what follows a refused message
	mangles              // sends other bytes
	blocks               // sends from Publish
	tellsLate            // Begin returns before the earlier leadership is settled
	leaves               // Close leaves messages unsettled
	swallows             // settles nil what is published after Close
	repeatsRows          // sends twice
	confuses             // sends the key of another message
)

// model is a sink into memory, sound or with one defect. One goroutine sends units of ten.
type model struct {
	defect defect

	mu      sync.Mutex
	changed *sync.Cond
	queue   []*relay.Message
	busy    bool
	closed  bool
	failure error
	first   *relay.Message
	stalled bool
	refuse  int
	store   []Record
	ended   chan struct{}
}

var errRefused = errors.New("refused")

func openModel(tb testing.TB, d defect) *Rig {
	tb.Helper()
	m := &model{defect: d, ended: make(chan struct{})}
	m.changed = sync.NewCond(&m.mu)
	go m.run()
	tb.Cleanup(func() {
		_ = m.Close()
		m.mu.Lock()
		m.stalled = false
		m.changed.Broadcast()
		m.mu.Unlock()
		<-m.ended
	})
	return &Rig{
		Sink: m, Topics: []string{"a", "b"},
		Landed: func(context.Context) ([]Record, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return append([]Record(nil), m.store...), nil
		},
		Refuse: func(n int) { m.set(func() { m.refuse = n }) },
		Stall: func() func() {
			m.set(func() { m.stalled = true })
			return func() { m.set(func() { m.stalled = false }) }
		},
	}
}

func (m *model) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.changed.Broadcast()
}

func (m *model) Begin(ctx context.Context, _ relay.Source) (relay.Checkpoint, error) {
	stop := context.AfterFunc(ctx, func() { m.set(func() {}) })
	defer stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.defect != tellsLate && (m.busy || len(m.queue) > 0) {
		if ctx.Err() != nil {
			return relay.Checkpoint{}, context.Cause(ctx)
		}
		m.changed.Wait()
	}
	m.failure = nil
	return relay.Checkpoint{}, nil
}

func (m *model) Publish(msg *relay.Message) {
	m.mu.Lock()
	if m.defect == settlesTwice && m.first != nil {
		m.mu.Unlock()
		m.first.Settle(nil)
		m.mu.Lock()
	}
	for m.defect == blocks && m.stalled {
		m.changed.Wait()
	}
	err := m.failure
	if m.closed {
		err = errors.New("closed")
		if m.defect == swallows {
			err = nil
		}
	} else if err == nil || m.defect == acksAfterward {
		m.queue = append(m.queue, msg)
		m.changed.Broadcast()
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	msg.Settle(err)
}

func (m *model) Close() error {
	m.mu.Lock()
	m.closed = true
	rest := m.queue
	m.queue = nil
	m.changed.Broadcast()
	for m.busy && m.defect != leaves {
		m.changed.Wait()
	}
	m.mu.Unlock()
	for _, msg := range rest {
		if m.defect != leaves {
			msg.Settle(errors.New("closed"))
		}
	}
	return nil
}

func (m *model) run() {
	defer close(m.ended)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for len(m.queue) == 0 && !m.closed {
			m.changed.Wait()
		}
		if m.closed && len(m.queue) == 0 {
			return
		}
		n := min(10, len(m.queue))
		unit := append([]*relay.Message(nil), m.queue[:n]...)
		m.queue = m.queue[n:]
		m.busy = true
		for m.stalled && !m.closed {
			m.changed.Wait()
		}
		errs := m.deliver(unit)
		m.mu.Unlock()
		for i, msg := range unit {
			if m.defect != forgets || string(msg.ID) != "77" {
				msg.Settle(errs[i])
			}
		}
		m.mu.Lock()
		if m.first == nil {
			m.first = unit[0] // never changes again
		}
		m.busy = false
		m.changed.Broadcast()
	}
}

// deliver stores unit, with the lock held.
func (m *model) deliver(unit []*relay.Message) []error {
	errs := make([]error, len(unit))
	err := m.failure
	if m.defect == acksAfterward {
		err = nil
	}
	if m.stalled { // closed meanwhile
		err = errors.New("closed")
	}
	if err == nil && m.refuse > 0 {
		if m.refuse--; m.refuse == 0 {
			err = errRefused
			m.failure = err
		}
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i := range unit {
		at := i
		if m.defect == reorders {
			at = len(unit) - 1 - i
		}
		m.put(unit[at])
	}
	return errs
}

func (m *model) put(msg *relay.Message) {
	r := Record{Topic: msg.Topic, Key: msg.Key, Value: append([]byte(nil), msg.Value...)}
	number := string(msg.ID)
	switch {
	case m.defect == drops && strings.HasSuffix(number, "33"):
		return
	case m.defect == mangles && strings.HasSuffix(number, "33"):
		r.Value[len(r.Value)-1] = '?'
	case m.defect == confuses && strings.HasSuffix(number, "33"):
		r.Key = []byte("key-9")
	case m.defect == repeatsRows && strings.HasSuffix(number, "33"):
		m.store = append(m.store, r)
	}
	m.store = append(m.store, r)
}

func TestSoundSinkPasses(t *testing.T) {
	Run(t, Harness{Open: func(tb testing.TB) *Rig { return openModel(tb, sound) }})
}

func TestDefectsAreFound(t *testing.T) {
	for d, says := range map[defect]string{
		reorders:      "lies downstream behind",
		drops:         "settled nil, but is not downstream",
		forgets:       "messages are not settled",
		settlesTwice:  "settled a message twice",
		acksAfterward: "settled nil, but message",
		mangles:       "with other bytes",
		confuses:      "as another's",
		blocks:        "Publish blocks",
		tellsLate:     "begin returned with",
		leaves:        "close returned with",
		swallows:      "settled nil after close",
		repeatsRows:   "is downstream twice",
	} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			t.Parallel()
			var found []string
			for _, c := range checks() {
				h := Harness{Patience: 2 * time.Second, Open: func(tb testing.TB) *Rig { return openModel(tb, d) }}
				err := h.try(t, c)
				if err != nil && strings.Contains(err.Error(), says) {
					return
				}
				found = append(found, fmt.Sprintf("%s: %v", c.name, err))
			}
			t.Errorf("nothing found that says %q:\n%s", says, strings.Join(found, "\n"))
		})
	}
}
