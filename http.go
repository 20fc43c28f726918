package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-cdc/outrider/relay"
)

// observed is what the HTTP server shows of a relay.
type observed interface {
	Live() error
	Ready() error
	Status() relay.Status
}

// handler answers probes, people and Prometheus. Nothing that changes state is
// reachable here: the port has no authentication.
func handler(r observed, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", probe(r.Live))
	mux.HandleFunc("GET /readyz", probe(r.Ready))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body := json.NewEncoder(w)
		body.SetIndent("", "  ")
		body.SetEscapeHTML(false) // hints hold SQL and shell
		_ = body.Encode(r.Status())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

// probe answers 200, or 503 with the reason.
func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// listen takes the port before anything else is started, so that one in use is
// told like any other mistake in the configuration.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	hint := relay.Hint{Say: "give host:port, or :port for all addresses", Env: prefix + "HTTP_ADDR=:8464"}
	if errors.Is(err, syscall.EADDRINUSE) {
		hint = relay.Hint{Say: "something else in this network namespace (in Kubernetes: in this pod) has the port; take another", Env: prefix + "HTTP_ADDR=:8465"}
	}
	return nil, withCode(exitConfig, hinted(fmt.Errorf("%sHTTP_ADDR=%q: %w", prefix, addr, err), hint))
}

// newServer returns a server that a slow or silent peer cannot hold on to.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// get asks a running relay that listens on addr, which is written as in HTTP_ADDR.
func get(ctx context.Context, addr, path string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, misuse(fmt.Errorf("%sHTTP_ADDR: %w", prefix, err))
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	// A transport of its own: HTTP_PROXY is not meant for a port of our own.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, hinted(err, relay.Hint{Say: "is outrider run up, and with the same " + prefix + "HTTP_ADDR?"})
	}
	return response, nil
}
