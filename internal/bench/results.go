package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// results are what BENCH_JSON gets.
type results struct {
	Commit   string   `json:"commit,omitempty"`
	Go       string   `json:"go"`
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"`
	Postgres string   `json:"postgres"`
	Kafka    string   `json:"kafka,omitempty"`
	Repeat   int      `json:"repeat"`
	Rows     int      `json:"rows"`
	Rate     int      `json:"latency_events_per_second"`
	Settings []string `json:"settings,omitempty"` // of the relay, beside its defaults
	Minutes  float64  `json:"minutes"`

	Throughput []*throughputResult `json:"throughput"`
	Latency    []*latencyResult    `json:"latency"`
	Retention  []*retentionResult  `json:"retention,omitempty"`
	Cost       []*costResult       `json:"cost,omitempty"` // of an event
	Gate       []*gateResult       `json:"gate,omitempty"` // without, and with it
	Idle       *idleResult         `json:"idle,omitempty"`
	Verdicts   []verdict           `json:"verdicts"`
}

// throughputResult is one leg of a part. Best holds the best of each figure
// over the runs, and the highest memory.
type throughputResult struct {
	Part  string        `json:"part"`
	Leg   string        `json:"leg"`
	Best  measurement   `json:"best"`
	Ratio float64       `json:"ratio_to_raw_reader,omitempty"` // of rows a second
	Runs  []measurement `json:"runs"`
}

// latencyResult is one leg; Best is the run with the lowest p99.
type latencyResult struct {
	Leg  string   `json:"leg"`
	Best steady   `json:"best"`
	Runs []steady `json:"runs"`
}

func newResults(o *options) *results {
	return &results{Go: runtime.Version(), CPU: cpuModel(), Cores: runtime.NumCPU(), Repeat: o.repeat, Rows: o.rows, Rate: o.rate, Settings: o.settings}
}

// cpuModel is what the kernel calls the processor.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (r *results) find(part, leg string) *throughputResult {
	at := slices.IndexFunc(r.Throughput, func(t *throughputResult) bool { return t.Part == part && t.Leg == leg })
	if at < 0 {
		return nil
	}
	return r.Throughput[at]
}

func (r *results) findLatency(leg string) *latencyResult {
	at := slices.IndexFunc(r.Latency, func(l *latencyResult) bool { return l.Leg == leg })
	if at < 0 {
		return nil
	}
	return r.Latency[at]
}

// add takes the result of a run.
func (r *results) add(part, leg string, m measurement) {
	t := r.find(part, leg)
	if t == nil {
		t = &throughputResult{Part: part, Leg: leg}
		r.Throughput = append(r.Throughput, t)
	}
	t.Runs = append(t.Runs, m)
	t.Best = bestOf(t.Runs)
}

// bestOf takes from several runs the best of each figure, and the highest memory.
func bestOf(runs []measurement) measurement {
	best := runs[0]
	better := func(old, found *share) *share {
		if old == nil {
			return nil
		}
		return &share{CPU: min(old.CPU, found.CPU), Peak: max(old.Peak, found.Peak)}
	}
	for _, m := range runs[1:] {
		if m.Rate > best.Rate {
			best.Rate, best.Seconds = m.Rate, m.Seconds
		}
		best.Process = *better(&best.Process, &m.Process)
		best.Walsender = better(best.Walsender, m.Walsender)
		best.Broker = better(best.Broker, m.Broker)
		best.Others = min(best.Others, m.Others)
	}
	return best
}

func (r *results) addLatency(leg string, s steady) {
	l := r.findLatency(leg)
	if l == nil {
		l = &latencyResult{Leg: leg, Best: s}
		r.Latency = append(r.Latency, l)
	}
	l.Runs = append(l.Runs, s)
	if s.P99 < l.Best.P99 {
		l.Best = s
	}
}

// Markers in docsFile, between which the table of a run stands.
const (
	docsBegin = "<!-- bench: begin -->\n"
	docsEnd   = "<!-- bench: end -->\n"
)

// save writes the results where the options say.
func (r *results) save(o *options, table string) error {
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if !o.docs {
		return nil
	}
	text, err := os.ReadFile(docsFile)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	before, rest, found := strings.Cut(string(text), docsBegin)
	_, after, closed := strings.Cut(rest, docsEnd)
	if !found || !closed {
		return errors.New("write the table: " + docsFile + " has no place for it")
	}
	return os.WriteFile(docsFile, []byte(before+docsBegin+table+docsEnd+after), 0o644)
}
