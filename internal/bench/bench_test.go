package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestOptions(t *testing.T) {
	env := map[string]string{"BENCH_ROWS": "5000", "BENCH_PARTS": "batch,big", "BENCH_SETTINGS": "A=1 B=2", "BENCH_JSON": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	o, err := parseOptions([]string{"-repeat", "2", "-sinks=kfake"}, lookup, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.rows != 5000 || o.singleRows() != 1000 || o.bigRows() != 15000 || o.repeat != 2 || o.json != "" {
		t.Errorf("options are %+v", o)
	}
	if !o.part(partBig) || o.part(partLatency) || !o.sink(sinkFake) || o.sink(sinkKafka) {
		t.Errorf("parts %v, sinks %v", o.parts, o.sinks)
	}
	if diff := cmp.Diff([]string{"A=1", "B=2"}, o.settings); diff != "" {
		t.Error(diff)
	}
	for _, wrong := range [][]string{{"-rows=999"}, {"-rows=0"}, {"-parts=bath"}, {"-repeat=x"}, {"rest"}} {
		if _, err := parseOptions(wrong, lookup, io.Discard); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
	env["BENCH_SINKS"] = "kafak"
	if _, err := parseOptions(nil, lookup, io.Discard); err == nil || !strings.Contains(err.Error(), "BENCH_SINKS") {
		t.Errorf("error is %v", err)
	}
}

func TestUsageOfOurselves(t *testing.T) {
	before, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 100*time.Millisecond; { // work, so that there is something to see
		_ = strings.Repeat("x", 1000)
	}
	after, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after.cpu - before.cpu; used <= 0 || used > 10*time.Second {
		t.Errorf("100 ms of work took %v", used)
	}
	if mib(after.peak) < 1 || mib(after.peak) > 10_000 {
		t.Errorf("peak is %.1f MiB", mib(after.peak))
	}
	family, err := familyCPU()
	if err != nil || family < after.cpu {
		t.Errorf("we took %v, and with our children %v, %v", after.cpu, family, err)
	}
	if machine, err := machineCPU(); err != nil || machine < family {
		t.Errorf("we took %v, and the whole machine %v, %v", family, machine, err)
	}
	if _, err := usageOf(-1); err == nil {
		t.Error("a process that is not there has a usage")
	}
}

func TestSamples(t *testing.T) {
	s := samples{skip: 5}
	for range 5 {
		s.add(time.Hour)
	}
	if s.latency() != nil {
		t.Error("skipped samples count")
	}
	for i := 200; i > 0; i-- {
		s.add(time.Duration(i) * time.Millisecond)
	}
	if diff := cmp.Diff(&latency{Count: 200, P50: 101, P99: 199, Max: 200}, s.latency()); diff != "" {
		t.Error(diff)
	}
}

func resultsOf(relayRate, relayCPU, relayP99 float64) *results {
	r := newResults(&options{repeat: 1})
	of := func(rate, cpu float64, walsender bool) measurement {
		m := measurement{Rate: rate, Process: share{CPU: cpu, Peak: 50}}
		if walsender {
			m.Walsender = &share{CPU: 3, Peak: 20}
		}
		return m
	}
	r.add(partBatch, legRaw, of(100, 2, true))
	r.add(partBatch, legStdout, of(relayRate, 3, true))
	r.add(partBatch, legBare, of(900, 1, false))
	r.add(partBatch, legKafka, of(50, relayCPU, true))
	for leg, p99 := range map[string]float64{legRaw: 1, legBare: 4, legKafka: relayP99} {
		r.addLatency(leg, steady{latency: latency{P99: p99}})
	}
	r.judge()
	return r
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name           string
		rate, cpu, p99 float64
		missed         string
	}{
		{"all well", 95, 4, 9, ""},
		{"at the limits", 90, 4.5, 10, ""},
		{"slow", 89, 4, 9, "into stdout"},
		{"costly", 95, 4.6, 9, "CPU of"},
		{"late", 95, 4, 10.1, "p99"},
	} {
		r := resultsOf(c.rate, c.cpu, c.p99)
		missed := false
		for _, v := range r.Verdicts {
			if v.Pass == (c.missed != "" && strings.Contains(v.What, c.missed)) {
				t.Errorf("%s: %+v", c.name, v)
			}
			missed = missed || !v.Pass
		}
		if missed != (c.missed != "") || len(r.Verdicts) != 6 {
			t.Errorf("%s: %d verdicts, missed %v", c.name, len(r.Verdicts), missed)
		}
		if got := strings.Contains(r.table(), "miss |"); got != missed {
			t.Errorf("%s: the table says\n%s", c.name, r.table())
		}
	}
}

func TestBestOfRuns(t *testing.T) {
	run := func(rate, cpu, peak float64) measurement {
		return measurement{Rate: rate, Seconds: 1 / rate, Process: share{cpu, peak}, Walsender: &share{cpu + 1, peak + 1}}
	}
	got := bestOf([]measurement{run(10, 5, 30), run(20, 6, 40), run(15, 4, 20)})
	want := measurement{Rate: 20, Seconds: 0.05, Process: share{4, 40}, Walsender: &share{5, 41}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTableInTheDocs(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("docs", 0o755); err != nil {
		t.Fatal(err)
	}
	o := &options{json: "result.json", docs: true}
	r := resultsOf(95, 4, 9)
	for _, content := range []string{"no place", "a\n" + docsBegin + "old\n" + docsEnd + "z\n"} { // the file of the last is looked at below
		fails := content == "no place"
		if err := os.WriteFile(docsFile, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.save(o, "new\n"); (err != nil) != fails {
			t.Errorf("%q: %v", content, err)
		}
	}
	text, err := os.ReadFile(docsFile)
	if want := "a\n" + docsBegin + "new\n" + docsEnd + "z\n"; err != nil || string(text) != want {
		t.Errorf("%v, %q", err, text)
	}
	var back results
	if text, err = os.ReadFile("result.json"); err == nil {
		err = json.Unmarshal(text, &back)
	}
	if diff := cmp.Diff(r, &back, cmp.AllowUnexported(steady{})); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// Producer and consumer against a fake broker: each record is there once, is as
// large as the table's rows, and has a time.
func TestProducerAndConsumer(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	const rows = 2*slab + 7
	begun := false
	j := job{Brokers: cluster.ListenAddrs(), Topic: "t", Rows: rows, Skip: 7}
	if _, err := produce(t.Context(), j, func() error { begun = true; return nil }); err != nil || !begun {
		t.Fatalf("begun %v, %v", begun, err)
	}
	r, err := consume(t.Context(), j, func() error { return nil })
	if err != nil || r.Rows != rows || r.Latency.Count != rows-7 || r.Latency.P50 < 0 || r.Latency.P50 > 60_000 {
		t.Errorf("%v, %+v", err, r)
	}
	br := broker{addresses: j.Brokers, topic: j.Topic}
	if err := br.holds(t.Context(), rows, false); err != nil {
		t.Error(err)
	}
	if err := br.holds(t.Context(), rows+1, false); err == nil {
		t.Error("a missing record is not noticed")
	}
	stop := errors.New("stop")
	if _, err := produce(t.Context(), j, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error is %v", err)
	}
}

func TestRecord(t *testing.T) {
	p := newProducer(nil, "t")
	p.stamp(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC))
	var all []*kgo.Record
	for n := range slab + 2 {
		all = append(all, p.record(n))
	}
	r := all[slab+1]
	if !json.Valid(r.Value) || len(r.Value) != payloadSize || !strings.HasPrefix(string(r.Value), `{"order":"0000000513"`) {
		t.Errorf("value is %s", r.Value)
	}
	if string(r.Key) != "order-513" || len(r.Headers) != 5 || string(all[1].Key) != "order-1" {
		t.Errorf("key %s, %d headers, key of the second %s", r.Key, len(r.Headers), all[1].Key)
	}
	if at, err := commitTime(r); err != nil || at.Nanosecond() != 6000 {
		t.Errorf("%v, %v", at, err)
	}
	p.stamp(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if at, err := commitTime(r); err != nil || at.Year() != 2026 {
		t.Errorf("a later time has overwritten that of an earlier record: %v, %v", at, err)
	}
	if _, err := commitTime(&kgo.Record{}); !errors.Is(err, errNoTime) {
		t.Errorf("error is %v", err)
	}
	ids := map[string]bool{}
	for _, r := range all {
		ids[string(r.Headers[0].Value)] = true
	}
	if len(ids) != len(all) {
		t.Errorf("%d ids of %d records", len(ids), len(all))
	}
}

func TestPollEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := poll(ctx, time.Millisecond, func() (bool, error) { return false, nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}
