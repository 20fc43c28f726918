// Command servers fetches every server and client that tests use into the cache, and
// starts each once to show that it works. Afterwards tests need no network.
//
// It promises an exit code of 1 if one of them cannot be had, after it has
// tried all. It does not install Java, Maven or pip.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/librdkafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	missing := fetch(ctx, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	stop()
	if missing > 0 {
		os.Exit(1)
	}
}

// fetch tries all servers, one after the other, and returns how many cannot be had.
func fetch(ctx context.Context, out io.Writer, log *slog.Logger) (missing int) {
	try := func(name string, open func() (io.Closer, error)) {
		began := time.Now()
		server, err := open()
		if err == nil {
			err = server.Close()
		}
		if err != nil {
			missing++
			_, _ = fmt.Fprintf(out, "%-13s missing: %v\n", name, err)
			return
		}
		_, _ = fmt.Fprintf(out, "%-13s ready, %s\n", name, time.Since(began).Round(10*time.Millisecond))
	}
	for _, major := range postgres.Majors() {
		try(fmt.Sprint("Postgres ", major), func() (io.Closer, error) {
			return postgres.Open(ctx, postgres.Options{Major: major, Logger: log})
		})
	}
	for _, version := range []string{kafka.Version, kafka.Version3} {
		try("Kafka "+version, func() (io.Closer, error) {
			return kafka.Open(ctx, kafka.Options{Version: version, Logger: log})
		})
	}
	try("librdkafka", func() (io.Closer, error) {
		_, _, err := librdkafka.Python(ctx)
		return io.NopCloser(nil), err
	})
	return missing
}
