// Package lab is what stands around an example: a Postgres, a Kafka, Outrider,
// and the example's services, each a process of its own that can be killed. All
// of it runs on this machine, needs no Docker, and is gone when it is closed.
//
// It is no part of what the examples show. A service takes its addresses from
// its environment, as it would anywhere else:
//
//	DATABASE_URL   its database
//	KAFKA_BROKERS  host:port,host:port
//	LISTEN         the address at which it serves HTTP
//
// Kafka is a fake one within the example's process, which takes no time to
// start; with KAFKA=real in the environment it is Apache Kafka, from Maven.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// Lab is the servers, and everything that was started beside them. Its methods
// may be called from any goroutine.
type Lab struct {
	Kafka Kafka

	folder *child.Folder
	server *postgres.Server
	binary string

	mu      sync.Mutex
	closers []func() error // of what stands on the servers
}

// Open builds Outrider and starts the servers; what is missing is downloaded,
// once. It returns within seconds after that.
func Open(ctx context.Context) (_ *Lab, err error) {
	l := &Lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.folder, err = child.NewFolder(os.TempDir(), "outrider-lab-"); err != nil {
		return nil, err
	}
	g, all := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		l.binary, err = chaos.Build(all, l.folder.Path(), false)
		return err
	})
	g.Go(func() (err error) {
		l.server, err = postgres.Open(all, postgres.Options{Settings: []string{"max_connections=300", "max_replication_slots=20", "max_wal_senders=20"}})
		return err
	})
	g.Go(func() (err error) {
		l.Kafka, err = openKafka(all, filepath.Join(l.folder.Path(), "kafka"))
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return l, nil
}

// Close ends all processes and removes all files.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers = nil
	l.mu.Unlock()
	var errs []error
	for _, closer := range slices.Backward(closers) {
		errs = append(errs, closer())
	}
	if l.Kafka != nil {
		errs = append(errs, l.Kafka.close())
	}
	if l.server != nil {
		errs = append(errs, l.server.Close())
	}
	if l.folder != nil {
		errs = append(errs, l.folder.Remove())
	}
	return errors.Join(errs...)
}

func (l *Lab) closing(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Poll asks until ask returns nil, or ctx ends; the error is then the last one.
func Poll(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
