package relay

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Relay follows one replication slot. One goroutine calls Run; Status, Live and
// Ready may be called from any.
type Relay struct {
	cfg     Config
	sink    Sink
	log     *slog.Logger
	metrics *metrics
	routes  *routes

	// Of Run's goroutine; they outlive sessions.
	ledger  *ledger
	history history
	former  here      // the server that we led on last
	started string    // when that server had been started
	abstain time.Time // until then another relay may have the slot
	lease   lease
	owed    owedRows

	quarantine quarantine
	refused    *refusals // of the last leadership

	// Shared between the stream, the progress writer and whoever looks. LSNs, and times in ns since 1970.
	settledLSN    atomic.Uint64 // the ledger's prefix
	rowsEnd       atomic.Uint64 // the same, counting only transactions with rows
	durable       atomic.Uint64 // progress.confirmed_lsn as committed: flushed <= durable <= settled
	flushed       atomic.Uint64 // sent to the server
	received      atomic.Uint64
	oldest        atomic.Int64 // commit time of the oldest unsettled row
	unconfirmed   atomic.Int64 // commit time of the oldest unconfirmed row
	serverDown    atomic.Bool  // the ordinary connection heard the server's farewell
	beginning     atomic.Bool  // Sink.Begin has not returned
	waitsForLease atomic.Bool
	sessions      atomic.Int64
	writeSeq      atomic.Int64 // of the newest progress write of the last leadership
	beat          atomic.Int64

	mu     sync.Mutex // guards state and flight
	state  Status
	flight *flight
}

// New returns a Relay. It does no I/O. It takes names that derive from others
// as [Config.Resolve] fills them in; an error lists everything that is wrong.
// Metrics are registered on reg.
func New(cfg Config, sink Sink, log *slog.Logger, reg prometheus.Registerer) (*Relay, error) {
	cfg, err := cfg.Resolve()
	if err != nil {
		return nil, err
	}
	if t, ok := sink.(Transactional); cfg.Delivery == ExactlyOnce && (!ok || !t.Checkpointed()) {
		return nil, errors.New("OUTRIDER_DELIVERY=exactly-once needs a sink that keeps checkpoints, and this one keeps none")
	}
	r := &Relay{cfg: cfg, sink: sink, log: log.With("slot", cfg.Slot), ledger: &ledger{}}
	r.state = Status{Role: RoleStarting, Since: time.Now(), Instance: cfg.Instance, Slot: cfg.Slot}
	r.metrics = newMetrics(reg, r)
	r.routes = newRoutes(cfg, r.metrics)
	return r, nil
}

// Backoff between sessions, jittered. A standby looks at the slot at the
// standby interval; a halted relay tries again at the longest.
const (
	backoffMin      = 50 * time.Millisecond
	backoffMax      = 5 * time.Second
	standbyInterval = time.Second // jittered to half and one and a half of it
	healthyAfter    = time.Minute
)

// Run relays until ctx ends, then drains and returns nil. Nothing else ends it,
// except what halts it if ExitOnHalt is set: that error is returned. A lost
// server is waited for, for ever.
func (r *Relay) Run(ctx context.Context) error {
	defer r.setRole(RoleStopped, "", nil)
	for attempt := 0; ; attempt++ {
		started := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				r.log.Warn("stopped without a clean end; what was not confirmed is sent again", "error", err)
			}
			return nil
		}
		if time.Since(started) > healthyAfter {
			attempt = 0
		}
		wait := r.sorted(err, attempt)
		if r.cfg.ExitOnHalt && (errors.Is(err, ErrFatal) || errors.Is(err, ErrPoison)) && r.Status().Role == RoleHalted {
			return err
		}
		r.turn()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// sorted tells what ended a session, and returns how long to wait.
func (r *Relay) sorted(err error, attempt int) time.Duration {
	wait := min(backoffMin<<min(attempt, 10), backoffMax)
	var waiting *waitError
	var standby *standbyError
	var aside *setAside
	switch {
	case err == nil:
		r.setRole(RoleWaiting, "reconnecting", nil)
	case errors.Is(err, errYield):
		r.setRole(RoleStandby, "yielded", err)
		r.abstain = time.Now().Add(2 * r.cfg.WALSenderTimeout)
	case errors.As(err, &standby):
		r.setRole(RoleStandby, "slot_held", err)
		wait = standbyInterval
	case errors.As(err, &waiting):
		r.metrics.errors.WithLabelValues("waiting").Inc()
		r.setRole(RoleWaiting, waiting.reason, err)
	case errors.As(err, &aside):
		r.metrics.errors.WithLabelValues("poison").Inc()
		r.log.Info("session ended; a new one goes on behind the refused row", "error", err)
		wait = backoffMin
	case errors.Is(err, ErrPoison) && !errors.Is(err, ErrFatal): // suspects: each session halves them
		r.metrics.errors.WithLabelValues("poison").Inc()
		r.log.Info("rows were refused; looking for the one that cannot be published", "error", err)
		r.setRole(RoleWaiting, "poison_search", err)
		wait = backoffMin // each session gets on; a pause that grows would be most of what a refused row costs
	case errors.Is(err, ErrPoison):
		r.metrics.errors.WithLabelValues("poison").Inc()
		r.setRole(RoleHalted, "poison", err)
	case errors.Is(err, ErrFatal):
		r.metrics.errors.WithLabelValues("fatal").Inc()
		reason := "fatal"
		if h, ok := errors.AsType[*Halt](err); ok {
			reason = h.Reason
		}
		r.setRole(RoleHalted, reason, err)
	case errors.Is(err, ErrFenced):
		r.metrics.errors.WithLabelValues("fenced").Inc()
		r.history = history{} // whatever the progress row says, somebody else has led since
		r.setRole(RoleStandby, "fenced", err)
		wait = backoffMax
	default:
		r.metrics.errors.WithLabelValues("retry").Inc()
		r.log.Warn("session ended; a new one follows", "error", err, "wait", wait.String())
		r.setRole(RoleWaiting, "reconnecting", err)
	}
	return jittered(wait)
}

// jittered is d give or take a half.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d) }
