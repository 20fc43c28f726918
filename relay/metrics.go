package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the relay's own; the sink brings those of its client.
type metrics struct {
	events  *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	latency prometheus.Histogram
	session prometheus.Counter
	errors  *prometheus.CounterVec
	notices *prometheus.CounterVec
	skipped prometheus.Counter
	gate    prometheus.Histogram
	writes  *prometheus.CounterVec

	audits     prometheus.Counter
	deleted    prometheus.Counter
	scheduled  prometheus.Counter
	partitions *prometheus.CounterVec
	cleanings  prometheus.Counter
	poisoned   *prometheus.CounterVec
	mismatch   *prometheus.CounterVec
	recoveries *prometheus.CounterVec
}

// newMetrics registers everything on reg. Gauges are read from r when scraped.
func newMetrics(reg prometheus.Registerer, r *Relay) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_events_published_total", Help: "Rows that the sink has made durable, by topic.",
		}, []string{"topic"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_published_bytes_total", Help: "Bytes of keys and values that the sink has made durable, by topic.",
		}, []string{"topic"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "outrider_commit_to_ack_seconds",
			Help:    "Time from the commit on the database server to the sink's acknowledgement: of the first row of each transaction and every sixteenth after it. Clocks of both hosts matter.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}),
		session: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_sessions_total", Help: "Replication sessions that took the slot.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_errors_total", Help: "Errors that ended a session or kept one from starting, by class.",
		}, []string{"class"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_notices_total", Help: "Notices and warnings of the replication connection, by SQLSTATE.",
		}, []string{"sqlstate"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_replayed_rows_skipped_total", Help: "Rows that the server sent again and that the sink already had.",
		}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_progress_writes_total", Help: "Writes of the progress row, by result.",
		}, []string{"result"}),
	}
	m.audits = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "outrider_audits_total", Help: "Comparisons of the rows in the table with those that the stream brought.",
	})
	m.mismatch = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_audit_mismatch_total", Help: "Rows by which table and stream differed: more in the table (recovered from there), or fewer (deleted by hand).",
	}, []string{"direction"})
	m.recoveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_recoveries_total", Help: "New slots whose start was filled from the table, by reason.",
	}, []string{"reason"})
	m.poisoned = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_poisoned_rows_total", Help: "Rows that the sink refused, by what became of them: dead-lettered or skipped.",
	}, []string{"state"})
	m.deleted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "outrider_retention_deleted_rows_total", Help: "Published rows that were deleted after the retention.",
	})
	m.partitions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_partitions_total", Help: "Partitions of the outbox that this relay had made or dropped.",
	}, []string{"done"})
	m.scheduled = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "outrider_scheduled_rows_total", Help: "Events that were scheduled, and that this relay had moved into the outbox when they were due.",
	})
	m.cleanings = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "outrider_retention_rounds_total", Help: "Times that the table was looked through for rows to delete.",
	})
	m.gate = newGateMetric()
	reg.MustRegister(m.gate, m.cleanings, m.deleted, m.scheduled, m.partitions, m.audits, m.poisoned, m.mismatch, m.recoveries)
	reg.MustRegister(m.events, m.bytes, m.latency, m.session, m.errors, m.notices, m.skipped, m.writes)
	for _, g := range r.gauges() {
		reg.MustRegister(g)
	}
	return m
}

func (r *Relay) gauges() []prometheus.Collector {
	gauge := func(name, help string, f func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return f(r.Status()) })
	}
	since := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return max(0, time.Since(t).Seconds())
	}
	gauges := []prometheus.Collector{
		gauge("outrider_in_flight_bytes", "Bytes handed to the sink and not acknowledged, overhead included.", func(s Status) float64 { return float64(s.InFlightBytes) }),
		gauge("outrider_in_flight_rows", "Rows handed to the sink and not acknowledged.", func(s Status) float64 { return float64(s.InFlightRows) }),
		gauge("outrider_received_lsn", "Newest WAL position that the server has reported.", func(s Status) float64 { return float64(s.received) }),
		gauge("outrider_confirmed_lsn", "WAL position up to which the slot was confirmed.", func(s Status) float64 { return float64(s.flushed) }),
		gauge("outrider_replication_lag_bytes", "WAL between the newest position received and the one confirmed.", func(s Status) float64 { return float64(s.LagBytes) }),
		gauge("outrider_replication_lag_seconds", "Age of the oldest commit that was received and is not confirmed; 0 if there is none.", func(s Status) float64 { return since(s.unconfirmed) }),
		gauge("outrider_backlog_rows", "Rows from before the slot that were handed to the sink, while a backlog is published.", func(s Status) float64 {
			if s.Backlog == nil {
				return 0
			}
			return float64(s.Backlog.Rows)
		}),
		gauge("outrider_backlog_rows_owed", "Rows from before the slot that are published by this leadership, 0 if none.", func(s Status) float64 {
			if s.Backlog == nil {
				return 0
			}
			return float64(s.Backlog.Owed)
		}),
		gauge("outrider_oldest_unpublished_seconds", "Age of the oldest commit that the sink has not acknowledged; 0 if there is none.", func(s Status) float64 { return since(s.unpublished) }),
	}
	for _, role := range roles {
		gauges = append(gauges, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "outrider_role", Help: "1 for the role that this relay has.",
			ConstLabels: prometheus.Labels{"role": string(role)},
		}, func() float64 {
			if r.Status().Role == role {
				return 1
			}
			return 0
		}))
	}
	return gauges
}
