package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// Kafka is a broker that can go away, and comes back with all that it acknowledged.
type Kafka interface {
	// Name is for people.
	Name() string
	Brokers() []string
	Stop(ctx context.Context) error
	Start(ctx context.Context) error

	close() error
}

func openKafka(ctx context.Context, dir string) (Kafka, error) {
	if os.Getenv("KAFKA") == "real" {
		cluster, err := kafka.Open(ctx, kafka.Options{})
		if err != nil {
			return nil, err
		}
		return realKafka{cluster}, nil
	}
	f := &fakeKafka{dir: dir}
	for range 5 {
		var err error
		if f.port, err = child.FreePort(); err != nil {
			return nil, err
		}
		if err = f.Start(ctx); !errors.Is(err, syscall.EADDRINUSE) { // somebody else may have been quicker
			return f, err
		}
	}
	return nil, errors.New("no free port for Kafka")
}

// realKafka is Apache Kafka.
type realKafka struct{ cluster *kafka.Cluster }

func (k realKafka) Name() string                    { return "Apache Kafka" }
func (k realKafka) Brokers() []string               { return k.cluster.Brokers() }
func (k realKafka) Stop(ctx context.Context) error  { return k.cluster.StopAll(ctx) }
func (k realKafka) Start(ctx context.Context) error { return k.cluster.StartAll(ctx) }
func (k realKafka) close() error                    { return k.cluster.Close() }

// fakeKafka is franz-go's, within this process.
type fakeKafka struct {
	dir  string
	port int

	mu      sync.Mutex
	cluster *kfake.Cluster // nil while it is away
}

func (k *fakeKafka) Name() string      { return "Kafka (a fake one; KAFKA=real for Apache's)" }
func (k *fakeKafka) Brokers() []string { return []string{"127.0.0.1:" + strconv.Itoa(k.port)} }

func (k *fakeKafka) Start(context.Context) (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cluster != nil {
		return nil
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(k.port), kfake.DataDir(k.dir))
	if err != nil {
		return fmt.Errorf("start the fake Kafka: %w", err)
	}
	k.cluster = cluster
	return nil
}

func (k *fakeKafka) Stop(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cluster != nil {
		k.cluster.Close()
		k.cluster = nil
	}
	return nil
}

func (k *fakeKafka) close() error { return k.Stop(context.Background()) }

// Topics makes topics, of so many partitions each.
func (l *Lab) Topics(ctx context.Context, partitions int32, names ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Kafka.Brokers()...))
	if err != nil {
		return err
	}
	defer client.Close()
	made, err := kadm.NewClient(client).CreateTopics(ctx, partitions, 1, nil, names...)
	if err = errors.Join(err, made.Error()); err != nil {
		return fmt.Errorf("make topics %v: %w", names, err)
	}
	return nil
}

// Read returns all records of a topic, up to its end as of now.
func (l *Lab) Read(ctx context.Context, topic string) (records []*kgo.Record, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Kafka.Brokers()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	for int64(len(records)) < left {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", topic, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records, nil
}
