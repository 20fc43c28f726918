package chaos_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// A real relay is caught when its sink lies, and not when it does not.
func TestBrokenRelaysAreCaught(t *testing.T) {
	for name, c := range map[string]struct {
		harm  func(*brokenSink, *relay.Message)
		found func(chaos.Report) []chaos.Finding
	}{
		"keeps its promises":      {keepsPromises, func(chaos.Report) []chaos.Finding { return nil }},
		"drops a row":             {drops, func(r chaos.Report) []chaos.Finding { return []chaos.Finding{r.Lost} }},
		"swaps two rows of a key": {swaps, func(r chaos.Report) []chaos.Finding { return []chaos.Finding{r.OutOfOrder} }},
		"repeats a row late":      {repeats, func(r chaos.Report) []chaos.Finding { return []chaos.Finding{r.Duplicates, r.LastValueErrors} }},
		"corrupts a row":          {corrupts, func(r chaos.Report) []chaos.Finding { return []chaos.Finding{r.Corrupted} }},
		"confirms early":          {confirmsEarly, func(r chaos.Report) []chaos.Finding { return []chaos.Finding{r.ConfirmedEarly} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report := throughSink(t, c.harm)
			t.Log(report)
			wanted := c.found(report)
			for i, f := range wanted {
				if f.Count == 0 {
					t.Errorf("not caught (%d)", i)
				}
			}
			if err := report.Err(); (err == nil) != (len(wanted) == 0) {
				t.Errorf("Err is %v", err)
			}
		})
	}
}

// throughSink runs a workload through a relay in this process whose sink does
// harm, and judges it.
func throughSink(t *testing.T, harm func(*brokenSink, *relay.Message)) chaos.Report {
	server := postgres.Start(t, 0)
	migrate(t, server.URL())
	brokers := newBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	sink := &brokenSink{Sink: newSink(t, brokers), harm: harm, behind: newProducer(t, brokers), seen: map[string]*kgo.Record{}}
	r, err := relay.New(relayConfig(t, server.URL()), sink, discard(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	relaying, stop := context.WithCancel(ctx)
	relayed := make(chan error, 1)
	go func() { relayed <- r.Run(relaying) }()
	until(ctx, t, "the relay leads", func() bool { return r.Status().Role == relay.RoleLeader })

	reader := reading(t, chaos.ReaderConfig{Brokers: brokers, Topics: []string{"accounts"}})
	sampler := &chaos.Sampler{DatabaseURL: server.URL(), Slot: slot, Reader: reader, Every: 10 * time.Millisecond}
	sampling, enough := context.WithCancel(ctx)
	sampled := make(chan struct{})
	go func() { defer close(sampled); sampler.Run(sampling) }()

	load := newWorkload(t, chaos.WorkloadConfig{DatabaseURL: server.URL(), Topics: []string{"accounts"}, Rows: 1500, Seed: 4})
	if err := load.Run(ctx); err != nil {
		t.Fatal(err)
	}
	out := load.Outcome()
	ids := make([]chaos.ID, len(out.Committed))
	for i, row := range out.Committed {
		ids[i] = row.ID
	}
	_ = reader.WaitFor(ctx, ids, 2*time.Second) // whether all arrived is for the verifier to say
	stop()
	if err := <-relayed; err != nil {
		t.Fatal(err)
	}
	looks := len(sampler.Samples())
	until(ctx, t, "somebody has looked at the slot after the end", func() bool { return len(sampler.Samples()) > looks+1 })
	enough()
	<-sampled
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := reader.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	return chaos.Verify(chaos.History{
		Committed: out.Committed, RolledBack: out.RolledBack, KeyContention: out.Meetings,
		Records: reader.Records(), Samples: sampler.Samples(), ExactlyOnce: true,
	})
}

// relayConfig is the configuration that the environment would give.
func relayConfig(t *testing.T, url string) (cfg relay.Config) {
	t.Helper()
	err := env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{"DATABASE_URL": url, "NAME": "chaos"}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newSink(t *testing.T, brokers []string) relay.Sink {
	t.Helper()
	var cfg kafka.Config
	if err := env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{"BROKERS": strings.Join(brokers, ",")}}); err != nil {
		t.Fatal(err)
	}
	sink, err := kafka.New(cfg, kafka.Options{ClientID: "chaos", Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

func newProducer(t *testing.T, brokers []string) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
