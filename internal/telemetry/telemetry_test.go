package telemetry_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-cdc/outrider/internal/telemetry"
	"github.com/outrider-cdc/outrider/relay"
)

// plain is a sink that keeps what it is given.
type plain struct {
	relay.Sink

	mu       sync.Mutex
	messages []*relay.Message
}

func (s *plain) Publish(m *relay.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
}

// capable can do all that a sink can.
type capable struct {
	relay.Transactional
	relay.Prober
}

func start(t *testing.T, environ ...string) (*telemetry.Telemetry, error) {
	t.Helper()
	sent, err := telemetry.Start(t.Context(), telemetry.Options{
		Environ: environ, Service: "outrider", Slot: "slot", Version: "v1", Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) // nobody listens
		defer cancel()
		_ = sent.Close(ctx)
	})
	return sent, err
}

// TestOffCostsNothing: not one wrapper stands between relay and sink unless somebody asked for spans.
func TestOffCostsNothing(t *testing.T) {
	for name, environ := range map[string][]string{
		"nothing set":      nil,
		"names only":       {"OTEL_SERVICE_NAME=shop", "OTEL_RESOURCE_ATTRIBUTES=a=b"},
		"disabled":         {"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=true"},
		"none":             {"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none"},
		"metrics only":     {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:1"},
		"empty is not set": {"OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_TRACES_EXPORTER= "},
	} {
		t.Run(name, func(t *testing.T) {
			sent, err := start(t, environ...)
			if err != nil {
				t.Fatal(err)
			}
			sink := new(plain)
			if got := sent.Trace(sink); got != relay.Sink(sink) {
				t.Errorf("the sink became %T", got)
			}
		})
	}
}

func TestWrongVariables(t *testing.T) {
	for variable, hint := range map[string]string{
		"OTEL_TRACES_EXPORTER=zipkin":                  "hint: otlp or none",
		"OTEL_METRICS_EXPORTER=prometheus":             "/metrics serves Prometheus",
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/json":        "hint: http/protobuf, on",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc":      "hint: http/protobuf, on",
		"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=protobuf": "hint: http/protobuf, on",
	} {
		_, err := start(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", variable)
		name, _, _ := strings.Cut(variable, "=")
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v", variable, err)
		}
	}
}

// TestSinkKeepsItsAbilities: the relay asks sinks what they can do.
func TestSinkKeepsItsAbilities(t *testing.T) {
	sent, err := start(t, "OTEL_TRACES_EXPORTER=otlp")
	if err != nil {
		t.Fatal(err)
	}
	full := sent.Trace(new(capable))
	if _, ok := full.(relay.Transactional); !ok {
		t.Error("a transactional sink is none any more")
	}
	if _, ok := full.(relay.Prober); !ok {
		t.Error("a sink that can be probed cannot any more")
	}
	inner := new(plain)
	simple := sent.Trace(inner)
	if _, ok := simple.(relay.Transactional); ok {
		t.Error("a sink became transactional")
	}
	var told error
	m := relay.NewMessage(&relay.Message{ID: []byte("1"), Topic: "t"}, nil, func(err error) { told = err })
	simple.Publish(m)
	if len(inner.messages) != 1 || inner.messages[0] != m {
		t.Fatal("the message did not reach the sink")
	}
	cause := errors.New("away")
	if m.Settle(cause); !errors.Is(told, cause) {
		t.Errorf("the relay was told %v", told)
	}
}
