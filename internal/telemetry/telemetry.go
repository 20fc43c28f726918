// Package telemetry sends spans and metrics by OTLP, as the OTEL_ variables of
// OpenTelemetry's specification say (SDK environment variables; OTLP exporter
// configuration). Without any of them it does nothing and costs nothing.
//
// It promises that no row is changed: the traceparent, tracestate and baggage
// of an event reach the topic as the application wrote them, and are only read
// here, for links. It never delays or fails a row either: what the collector
// does not take is dropped by OpenTelemetry's queue, and logged.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-cdc/outrider/relay"
)

// Options of [Start].
type Options struct {
	// Environ is the environment, NAME=value. It decides what is sent and by
	// which protocol; where to, how often and with which limits OpenTelemetry's
	// packages read from the process's environment themselves.
	Environ []string
	Service string // service.name unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give one
	Slot    string
	Version string
	Metrics prometheus.Gatherer
	Logger  *slog.Logger
}

// Telemetry is what is sent. The zero value sends nothing.
type Telemetry struct {
	slot    string
	spans   *sdktrace.TracerProvider // nil: no spans
	metrics *metric.MeterProvider    // nil: no metrics
}

// What is sent, and how. These names and values are the specification's.
const (
	signalTraces  = "TRACES"
	signalMetrics = "METRICS"

	exporterOTLP = "otlp"
	exporterNone = "none"

	// The specification's default. The other one, grpc, would be a megabyte of
	// the binary, and every collector takes both.
	protocol = "http/protobuf"
)

// Start reads the environment and starts what it asks for. It does no I/O; an
// error means that a variable is wrong. Call Close at the end.
func Start(ctx context.Context, o Options) (*Telemetry, error) {
	vars := environment(o.Environ)
	t := &Telemetry{slot: o.Slot}
	traces, terr := vars.sends(signalTraces)
	metrics, merr := vars.sends(signalMetrics)
	if err := errors.Join(terr, merr); err != nil || !traces && !metrics {
		return t, err
	}
	// The only way to hear of what could not be sent; OpenTelemetry has one handler a process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Logger.Warn("telemetry was not sent", "error", err) }))
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", o.Service), attribute.String("service.version", o.Version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return t, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if traces {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return t, fmt.Errorf("export of spans: %w", err)
		}
		t.spans = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(exporter))
	}
	if metrics {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return t, errors.Join(fmt.Errorf("export of metrics: %w", err), t.Close(ctx)) // nothing waits to be sent
		}
		producer := bridge.NewMetricProducer(bridge.WithGatherer(o.Metrics))
		t.metrics = metric.NewMeterProvider(metric.WithResource(res),
			metric.WithReader(metric.NewPeriodicReader(exporter, metric.WithProducer(producer))))
	}
	o.Logger.Info("telemetry is sent by OTLP", "traces", traces, "metrics", metrics)
	return t, nil
}

// Close sends what waits, and ends. ctx bounds it.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	if t.spans != nil {
		errs = append(errs, t.spans.Shutdown(ctx))
	}
	if t.metrics != nil {
		errs = append(errs, t.metrics.Shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("send the last telemetry: %w", err)
	}
	return nil
}

// Trace returns sink with a span for each batch that goes through it, or sink
// itself if no spans are sent.
func (t *Telemetry) Trace(sink relay.Sink) relay.Sink {
	if t.spans == nil {
		return sink
	}
	b := &batches{
		tracer: t.spans.Tracer("github.com/outrider-cdc/outrider"), now: time.Now,
		common: []attribute.KeyValue{attribute.String("outrider.slot", t.slot), attribute.String("messaging.operation.name", "send"), attribute.String("messaging.operation.type", "send")},
	}
	if full, ok := sink.(capable); ok {
		b.common = append(b.common, attribute.String("messaging.system", "kafka"))
		return &tracedCapable{full, b}
	}
	return &traced{sink, b}
}

// environment is variables by name. As the specification says, an empty one is an unset one.
type environment []string

func (e environment) get(name string) string {
	for _, v := range slices.Backward(e) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// sends tells whether a signal is sent: nothing is unless an endpoint or an
// exporter was named. The specification would send to
// localhost by default; a relay nobody configured should not knock there.
func (e environment) sends(signal string) (bool, error) {
	if off, _ := strconv.ParseBool(e.get("OTEL_SDK_DISABLED")); off {
		return false, nil
	}
	name := "OTEL_" + signal + "_EXPORTER"
	switch exporter := e.get(name); {
	case exporter == exporterNone:
		return false, nil
	case exporter == "" && e.get("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && e.get("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "":
		return false, nil
	case exporter != "" && exporter != exporterOTLP:
		return false, fmt.Errorf("%s: %q is not supported; hint: otlp or none (/metrics serves Prometheus anyway)", name, exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch value := e.get(name); value {
		case "":
		case protocol:
			return true, nil
		default:
			return false, fmt.Errorf("%s: %q is not supported; hint: %s, on the collector's port 4318", name, value, protocol)
		}
	}
	return true, nil
}

// tracer is what batches need of OpenTelemetry.
type tracer interface {
	Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span)
}
