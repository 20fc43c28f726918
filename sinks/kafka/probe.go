package kafka

import (
	"context"
	"fmt"

	"github.com/outrider-cdc/outrider/relay"
)

var _ relay.Prober = (*Sink)(nil)

// Probe implements [relay.Prober]: it asks a broker for its versions, over a
// client of its own, which is gone when Probe returns. A standby may talk to
// Kafka; what it may not is produce.
func (s *Sink) Probe(ctx context.Context) error {
	p := &producer{sink: s}
	p.source.Store(&relay.Source{})
	client, err := newClient(s.connectOptions(p))
	if err != nil {
		return fmt.Errorf("probe kafka: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("probe kafka: %w", err)
	}
	return nil
}
