package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Role is what a relay is doing.
type Role string

// The roles. A relay that waits or is halted is alive and tries again by itself.
const (
	RoleStarting Role = "starting" // nothing is decided yet
	RoleWaiting  Role = "waiting"  // for something that comes by itself: a server, the schema
	RoleStandby  Role = "standby"  // another relay has the slot
	RoleLeader   Role = "leader"   // we have the slot
	RoleHalted   Role = "halted"   // somebody must act
	RoleStopped  Role = "stopped"  // Run has returned
)

//nolint:gochecknoglobals // a table that nobody changes
var roles = []Role{RoleStarting, RoleWaiting, RoleStandby, RoleLeader, RoleHalted, RoleStopped}

// Status is a snapshot for /status and the metrics.
type Status struct {
	Role       Role        `json:"role"`
	Since      time.Time   `json:"since"`
	Reason     string      `json:"reason,omitempty"` // stable key, when waiting, standby or halted
	Error      string      `json:"error,omitempty"`
	Hint       string      `json:"hint,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"` // what the sink waits for

	Instance   string `json:"instance"`
	Slot       string `json:"slot"`
	SystemID   string `json:"system_id,omitempty"`
	Timeline   int32  `json:"timeline,omitempty"`
	Epoch      int64  `json:"epoch,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Sessions   int64  `json:"sessions"`

	ReceivedLSN   string `json:"received_lsn"`
	SettledLSN    string `json:"settled_lsn"`
	DurableLSN    string `json:"durable_lsn"`
	ConfirmedLSN  string `json:"confirmed_lsn"`
	LagBytes      int64  `json:"lag_bytes"`
	InFlightBytes int64  `json:"in_flight_bytes"`
	InFlightRows  int64  `json:"in_flight_rows"`
	BudgetFull    bool   `json:"budget_full"`

	Backlog *Backlog `json:"backlog,omitempty"` // while rows from before the slot are published

	OldestUnpublished *time.Time `json:"oldest_unpublished,omitempty"` // commit time

	received, flushed        LSN
	unpublished, unconfirmed time.Time
}

// setRole changes the role and logs the change once, however often it is
// confirmed by another attempt.
func (r *Relay) setRole(role Role, reason string, err error) {
	r.mu.Lock()
	changed := r.state.Role != role || r.state.Reason != reason
	if changed {
		r.state.Role, r.state.Reason, r.state.Since = role, reason, time.Now()
	}
	r.state.Error, r.state.Hint = "", ""
	if err != nil {
		r.state.Error, r.state.Hint = err.Error(), HintText(err)
	}
	hint := r.state.Hint
	r.mu.Unlock()
	if !changed {
		return
	}
	switch role {
	case RoleHalted:
		r.log.Error("halted", "reason", reason, "error", err, "hint", hint)
	case RoleWaiting:
		r.log.Warn("waiting", "reason", reason, "error", err, "hint", hint)
	default:
		r.log.Info("role changed", "role", string(role), "reason", reason)
	}
}

// report takes a condition from the sink. Any goroutine.
func (r *Relay) report(c Condition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(r.state.Conditions, func(have Condition) bool {
		return have.Reason == c.Reason && have.Topic == c.Topic
	})
	switch {
	case c.Since.IsZero() && at >= 0:
		r.state.Conditions = slices.Delete(slices.Clone(r.state.Conditions), at, at+1)
		r.log.Info("condition over", "reason", c.Reason, "topic", c.Topic)
	case c.Since.IsZero():
	case at >= 0:
		r.state.Conditions = slices.Clone(r.state.Conditions) // readers hold the old one
		r.state.Conditions[at] = c
	default:
		r.state.Conditions = append(slices.Clone(r.state.Conditions), c)
		r.log.Warn("condition", "reason", c.Reason, "topic", c.Topic, "hint", c.Hint)
	}
}

// Status returns a snapshot. Any goroutine.
func (r *Relay) Status() Status {
	r.mu.Lock()
	s := r.state
	s.Conditions = slices.Clone(s.Conditions)
	flight := r.flight
	r.mu.Unlock()
	s.Sessions = r.sessions.Load()
	s.Backlog = r.owed.status()
	s.received, s.flushed = LSN(r.received.Load()), LSN(r.flushed.Load())
	s.ReceivedLSN, s.ConfirmedLSN = s.received.String(), s.flushed.String()
	s.SettledLSN, s.DurableLSN = LSN(r.settledLSN.Load()).String(), LSN(r.durable.Load()).String()
	s.unpublished, s.unconfirmed = fromNano(r.oldest.Load()), fromNano(r.unconfirmed.Load())
	if s.received > s.flushed && s.Role == RoleLeader {
		s.LagBytes = int64(s.received - s.flushed)
	}
	if !s.unpublished.IsZero() {
		s.OldestUnpublished = &s.unpublished
	}
	if flight != nil {
		s.InFlightBytes, s.InFlightRows, s.BudgetFull = flight.bytes.Load(), flight.rows.Load(), flight.full()
	}
	return s
}

// stuck is how long a loop may go without a turn before it counts as dead. All
// waits in the relay turn far more often.
const stuck = time.Minute

// Live reports whether the relay's loop makes turns. It never tells of Postgres
// or of the sink: an outage is no reason to be restarted.
func (r *Relay) Live() error {
	if idle := time.Since(fromNano(r.beat.Load())); r.beat.Load() != 0 && idle > stuck && r.Status().Role != RoleStopped {
		return fmt.Errorf("no turn of the main loop for %s", idle.Round(time.Second))
	}
	return nil
}

// Ready reports whether the role is decided: also waiting, standby and halted are.
func (r *Relay) Ready() error {
	if s := r.Status(); s.Role == RoleStarting || s.Role == RoleStopped {
		return errors.New("role is " + string(s.Role))
	}
	return nil
}

// turn marks that the main loop is alive. Any goroutine that does its work.
func (r *Relay) turn() { r.beat.Store(time.Now().UnixNano()) }

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func toNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// firstLine keeps log lines and /status short where a server sends paragraphs.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
