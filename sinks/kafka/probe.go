package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

var _ relay.Prober = (*Sink)(nil)

// Probe implements [relay.Prober]: it asks a broker for its versions, over a
// client of its own, which is gone when Probe returns. A standby may talk to
// Kafka; what it may not is produce.
func (s *Sink) Probe(ctx context.Context) error {
	p := &producer{sink: s}
	p.source.Store(&relay.Source{})
	opts := []kgo.Opt{
		kgo.SeedBrokers(s.cfg.Brokers...), kgo.ClientID(s.opts.ClientID), kgo.Dialer(p.dial), kgo.DisableClientMetrics(),
	}
	if m := s.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("probe kafka: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("probe kafka: %w", err)
	}
	return nil
}
