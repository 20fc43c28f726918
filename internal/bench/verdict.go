package main

import "fmt"

// verdict compares a figure with what is asked of it.
type verdict struct {
	Required bool    `json:"required"` // else it is an aim
	What     string  `json:"what"`
	Value    float64 `json:"value"`
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"at_least"` // the limit is the lowest value, not the highest
	Pass     bool    `json:"pass"`
}

const (
	minRatio     = 0.9 // of the raw reader's rows a second, into the stdout sink
	maxCPURatio  = 1.5 // of the CPU time of raw reader and bare producer together
	maxP99Ratio  = 2   // of the p99 of both baselines together
	aimBatchCPU  = 5   // seconds per million rows
	aimSingleCPU = 12
	aimP99       = 10  // ms
	minExact     = 0.8 // of the rows a second of at-least-once
	aimExactP99  = 60  // ms
	maxCostRatio = 1.3 // of the WAL of Debezium's table
	aimMemory    = budget>>20 + 40
)

// judge compares what was measured; what was not is left out.
func (r *results) judge() {
	for _, t := range r.Throughput {
		if raw := r.find(t.Part, legRaw); raw != nil && t.Best.Walsender != nil {
			t.Ratio = t.Best.Rate / raw.Best.Rate
		}
	}
	for _, part := range []string{partBatch, partSingle} {
		if t := r.find(part, legStdout); t != nil && t.Ratio > 0 {
			r.verdict(verdict{Required: true, AtLeast: true, What: part + ": rows/s into stdout ÷ raw reader", Value: t.Ratio, Limit: minRatio})
		}
		r.judgeCPU(part, legFake, legBareFake)
		r.judgeCPU(part, legKafka, legBare)
		if plain, exact := r.find(part, legKafka), r.find(part, legExact); plain != nil && exact != nil {
			r.verdict(verdict{Required: true, AtLeast: true, What: part + ": rows/s of exactly-once ÷ at-least-once, into kafka", Value: exact.Best.Rate / plain.Best.Rate, Limit: minExact})
		}
	}
	r.judgeLatency(legFake, legBareFake)
	r.judgeLatency(legKafka, legBare)
	if t := r.find(partBatch, legKafka); t != nil {
		r.verdict(verdict{What: "batch: CPU-s per million rows into kafka", Value: t.Best.Process.CPU, Limit: aimBatchCPU})
	}
	if t := r.find(partSingle, legKafka); t != nil {
		r.verdict(verdict{What: "single: CPU-s per million rows into kafka", Value: t.Best.Process.CPU, Limit: aimSingleCPU})
	}
	if l := r.findLatency(legKafka); l != nil {
		r.verdict(verdict{What: "p99 into kafka, ms", Value: l.Best.P99, Limit: aimP99})
	}
	if l := r.findLatency(legExact); l != nil {
		r.verdict(verdict{What: "p99 into kafka, exactly-once, ms", Value: l.Best.P99, Limit: aimExactP99})
	}
	r.judgeMemory()
	r.judgeCost()
}

func (r *results) verdict(v verdict) {
	v.Pass = v.Value <= v.Limit
	if v.AtLeast {
		v.Pass = v.Value >= v.Limit
	}
	r.Verdicts = append(r.Verdicts, v)
}

func (r *results) judgeCPU(part, relayLeg, producerLeg string) {
	raw, relay, producer := r.find(part, legRaw), r.find(part, relayLeg), r.find(part, producerLeg)
	if raw == nil || relay == nil || producer == nil {
		return
	}
	r.verdict(verdict{
		Required: true, What: fmt.Sprintf("%s: CPU of %s ÷ (raw reader + producer)", part, relayLeg),
		Value: relay.Best.Process.CPU / (raw.Best.Process.CPU + producer.Best.Process.CPU), Limit: maxCPURatio,
	})
}

func (r *results) judgeLatency(relayLeg, producerLeg string) {
	raw, relay, producer := r.findLatency(legRaw), r.findLatency(relayLeg), r.findLatency(producerLeg)
	if raw == nil || relay == nil || producer == nil {
		return
	}
	r.verdict(verdict{
		Required: true, What: fmt.Sprintf("p99 of %s ÷ (raw reader + producer)", relayLeg),
		Value: relay.Best.P99 / (raw.Best.P99 + producer.Best.P99), Limit: maxP99Ratio,
	})
}

// judgeMemory looks at the relay's highest resident set in all runs, and in
// that of one big transaction.
func (r *results) judgeMemory() {
	peaks := map[bool]float64{}
	for _, t := range r.Throughput {
		if t.Leg != legRaw && t.Best.Walsender != nil {
			peaks[t.Part == partBig] = max(peaks[t.Part == partBig], t.Best.Process.Peak)
		}
	}
	for _, big := range []bool{false, true} {
		if peak := peaks[big]; peak > 0 {
			what := "peak RSS of the relay in batch and single, MiB"
			if big {
				what = "peak RSS of the relay in one big transaction, MiB"
			}
			r.verdict(verdict{What: what, Value: peak, Limit: aimMemory})
		}
	}
}
