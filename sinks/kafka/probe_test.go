package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/relay"
)

// A standby asks whether it would reach Kafka. It must neither produce nor
// register a producer, and say no within its time where nobody answers.
func TestProbe(t *testing.T) {
	c := fake(t)
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.InitProducerID} {
		c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			t.Errorf("a probe sent a request of kind %s", key.Name())
			return nil, nil, false
		})
	}
	w := newWorld(t, config(c.ListenAddrs()...))
	var prober relay.Prober = w.sink
	if err := prober.Probe(t.Context()); err != nil {
		t.Errorf("the broker is there: %v", err)
	}
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := prober.Probe(ctx); err == nil {
		t.Error("the broker is gone, and the probe says it is not")
	}
}
