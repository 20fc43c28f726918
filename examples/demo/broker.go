package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

const (
	topic      = "orders"
	partitions = 3

	usualPort = 9092
)

// broker is a Kafka within this process. Its log is in a folder, so that it
// goes away and comes back with what it had acknowledged.
type broker struct {
	cluster *kfake.Cluster // nil while it is away
	folder  string
	port    int
}

// openBroker starts a broker on Kafka's port, or on a free one where that is taken.
func openBroker(dir string) (*broker, error) {
	b := &broker{folder: filepath.Join(dir, "kafka"), port: usualPort}
	err := b.start()
	for range 5 {
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		if b.port, err = child.FreePort(); err == nil {
			err = b.start()
		}
	}
	return b, err
}

func (b *broker) address() string { return "127.0.0.1:" + strconv.Itoa(b.port) }

// start starts the broker on what its folder holds.
func (b *broker) start() (err error) {
	b.cluster, err = kfake.NewCluster(
		kfake.NumBrokers(1), kfake.Ports(b.port), kfake.SeedTopics(partitions, topic),
		kfake.DataDir(b.folder),
	)
	if err != nil {
		b.cluster = nil
		return fmt.Errorf("start the broker: %w", err)
	}
	return nil
}

// stop stops the broker; one that is away is left alone.
func (b *broker) stop() {
	if b.cluster != nil {
		b.cluster.Close()
		b.cluster = nil
	}
}
