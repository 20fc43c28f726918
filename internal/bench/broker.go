package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// broker is where a run sends its records.
type broker struct {
	addresses []string
	pid       int
	topic     string
	close     func() error
}

// brokerFor returns the broker of a sink, with an empty topic for one run:
// a fresh process of kfake, or a fresh topic of the one real broker. It returns
// a broker with neither for stdout.
func (b *bench) brokerFor(ctx context.Context, sink, topic string) (*broker, error) {
	var br *broker
	switch sink {
	case sinkFake:
		port, err := child.FreePort()
		if err != nil {
			return nil, err
		}
		w, err := b.startWorker(ctx, job{Role: roleFake, Port: port})
		if err != nil {
			return nil, err
		}
		br = &broker{addresses: []string{"127.0.0.1:" + strconv.Itoa(port)}, pid: w.Pid(), close: w.close}
	case sinkKafka:
		br = &broker{addresses: b.kafka.Brokers(), pid: b.kafka.Pid(1)}
		br.close = func() error { return deleteTopic(context.WithoutCancel(ctx), br.addresses, topic) }
	default:
		return &broker{close: func() error { return nil }}, nil
	}
	br.topic = topic
	err := admin(br.addresses, func(client *kadm.Client) error {
		_, err := client.CreateTopic(ctx, int32(b.options.partitions), 1, nil, topic)
		return err
	})
	if err != nil {
		_ = br.close()
		return nil, fmt.Errorf("create topic: %w", err)
	}
	return br, nil
}

func admin(addresses []string, f func(*kadm.Client) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addresses...))
	if err != nil {
		return err
	}
	defer client.Close()
	return f(kadm.NewClient(client))
}

func deleteTopic(ctx context.Context, addresses []string, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return admin(addresses, func(client *kadm.Client) error {
		_, err := client.DeleteTopic(ctx, topic)
		return err
	})
}

// count is how many records a topic holds.
func (br *broker) count(ctx context.Context) (n int, err error) {
	err = admin(br.addresses, func(client *kadm.Client) error {
		ends, err := client.ListEndOffsets(ctx, br.topic)
		if err != nil {
			return err
		}
		ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
		return ends.Error()
	})
	return n, err
}

// read is how many committed records a reader gets, who waits for rows of them and then a little for more.
func (br *broker) read(ctx context.Context, rows int) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(br.addresses...), kgo.ConsumeTopics(br.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	for n < rows {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return n, fmt.Errorf("after %d records: %w", n, err)
		}
		n += fetches.NumRecords()
	}
	more, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	return n + client.PollFetches(more).NumRecords(), nil
}

// openKafka starts the real broker, with the compilers and memory of a long
// run, and lets it get warm.
func (b *bench) openKafka(ctx context.Context) error {
	cluster, err := kafka.Open(ctx, kafka.Options{
		Throughput: true, Dir: b.options.dir, Logger: b.log,
		// Topics of earlier runs must not fill the memory in which the data lies.
		Properties: []string{"log.segment.delete.delay.ms=1000"},
	})
	if err != nil {
		return err
	}
	b.kafka = cluster
	b.say("warming up kafka")
	_, err = b.bareProducer(ctx, sinkKafka, "warm-up", min(b.options.rows, 300_000))
	return err
}

// fakeBroker is kfake as a process.
func fakeBroker(ctx context.Context, j job, ready func() error) error {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(j.Port))
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
