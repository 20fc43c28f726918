package relay

import (
	"sync/atomic"
	"time"
)

// owedRows is how far a backlog is, for whoever looks.
type owedRows struct {
	owed, done atomic.Int64
	estimated  atomic.Bool
	active     atomic.Bool
	told       atomic.Int64
}

// Backlog is the progress of rows that lie before the slot.
type Backlog struct {
	Rows      int64 `json:"rows"` // handed to the sink in this leadership
	Owed      int64 `json:"owed"` // in all
	Estimated bool  `json:"estimated,omitempty"`
}

func (o *owedRows) begin(rows int64, estimated bool) {
	o.owed.Store(rows)
	o.done.Store(0)
	o.estimated.Store(estimated)
	o.told.Store(time.Now().UnixNano())
	o.active.Store(true)
}

func (o *owedRows) end() { o.active.Store(false) }

func (o *owedRows) status() *Backlog {
	if !o.active.Load() {
		return nil
	}
	return &Backlog{Rows: o.done.Load(), Owed: o.owed.Load(), Estimated: o.estimated.Load()}
}

// tellEvery is how often the log says how far a backlog is.
const tellEvery = 10 * time.Second

func (o *owedRows) tell(r *Relay) {
	if told := o.told.Load(); o.active.Load() && time.Since(fromNano(told)) > tellEvery && o.told.CompareAndSwap(told, time.Now().UnixNano()) {
		r.log.Info("publishing rows from before the slot", "rows", o.done.Load(), "rows_owed", o.owed.Load(), "estimated", o.estimated.Load())
	}
}
