package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// one broker for all tests that leave the nodes alone.
var one kafka.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(one.Closing(m)) }

// limit bounds what a test waits for.
const limit = time.Minute

func client(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// produce sends values and waits until all are acknowledged by all replicas.
func produce(t testing.TB, c *kgo.Client, topic string, values ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	records := make([]*kgo.Record, len(values))
	for i, v := range values {
		records[i] = &kgo.Record{Topic: topic, Value: []byte(v)}
	}
	if err := c.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// consume reads n values from the beginning.
func consume(t testing.TB, brokers []string, topic string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := client(t, brokers, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var values []string
	for len(values) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("consume after %d values: %v", len(values), err)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestProduceAndConsume(t *testing.T) {
	began := time.Now()
	c := one.Cluster(t)
	t.Logf("cluster after %v", time.Since(began))
	topic := c.Topic(t, 1, map[string]string{"max.message.bytes": "2000"})
	want := []string{"a", "b", "c"}
	p := client(t, c.Brokers(), kgo.ProducerBatchCompression(kgo.NoCompression()))
	produce(t, p, topic, want...)
	if got := consume(t, c.Direct(), topic, len(want)); !slices.Equal(got, want) {
		t.Errorf("consumed %q, want %q", got, want)
	}
	err := p.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 5000)}).FirstErr()
	if err == nil {
		t.Error("the topic's configuration does not hold: a large record was taken")
	}
	if other := c.Topic(t, 1, nil); other == topic {
		t.Errorf("two topics have the name %s", topic)
	}
}

// Transactions of the second kind are a feature that only a formatted node has.
func TestHasTheFeaturesOfItsVersion(t *testing.T) {
	c := one.Cluster(t)
	c.Private(t)
	versions, err := kadm.NewClient(client(t, c.Brokers())).ApiVersions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, broker := range versions {
		for _, f := range broker.Raw().FinalizedFeatures {
			if f.Name == "transaction.version" && f.MaxVersionLevel == 2 {
				return
			}
		}
	}
	t.Error("transaction.version is not 2")
}

func TestClusterKeepsDataWhenKilled(t *testing.T) {
	for _, version := range []string{kafka.Version, kafka.Version3} {
		t.Run(version, func(t *testing.T) {
			c := kafka.StartWith(t, kafka.Options{Version: version})
			topic := c.Topic(t, 1, nil)
			want := []string{"a", "b"}
			p := client(t, c.Brokers())
			produce(t, p, topic, want...)
			pid := c.Pid(1)
			if err := c.Kill(1); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) || c.Pid(1) != 0 {
				t.Fatalf("the node is still there: %v", err)
			}
			began := time.Now()
			if err := c.StartNode(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			t.Logf("back after %v", time.Since(began))
			produce(t, p, topic, "c")
			if got := consume(t, c.Brokers(), topic, 3); !slices.Equal(got, append(want, "c")) {
				t.Errorf("consumed %q", got)
			}
			began = time.Now()
			if err := c.StopAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("stopped after %v", time.Since(began))
			if log := c.Log(1); strings.Contains(log, "ERROR") {
				t.Errorf("the log has errors:\n%s", log)
			}
		})
	}
}

func TestThreeNodesOutliveOne(t *testing.T) {
	began := time.Now()
	c := kafka.Start(t, 3)
	t.Logf("three nodes after %v", time.Since(began))
	topic := c.Topic(t, 3, nil)
	p := client(t, c.Brokers())
	produce(t, p, topic, "before")
	if err := c.Kill(2); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	var values []string
	for i := range 100 {
		values = append(values, fmt.Sprint(i))
	}
	produce(t, p, topic, values...)
	t.Logf("produced without node 2 after %v", time.Since(began))
	began = time.Now()
	if err := c.StartNode(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := c.WaitInSync(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("node 2 in sync after %v", time.Since(began))
	// Now the others may fail in turn: the data is on node 2 as well.
	if err := c.Stop(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if got := consume(t, c.Brokers(), topic, 101); len(got) != 101 {
		t.Errorf("consumed %d values", len(got))
	}
	began = time.Now()
	if err := c.StartNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.StopAll(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("started node 1 and stopped all after %v", time.Since(began))
	if err := c.StartAll(ctx); err != nil {
		t.Fatal(err)
	}
	produce(t, p, topic, "after")
}

func TestPausedNodeAnswersLater(t *testing.T) {
	c := kafka.Start(t, 1)
	topic := c.Topic(t, 1, nil)
	p := client(t, c.Brokers())
	produce(t, p, topic, "a")
	if err := c.Pause(1); err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	p.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("b")}, func(_ *kgo.Record, err error) { acked <- err })
	select {
	case err := <-acked:
		t.Fatalf("a frozen node answered: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := c.Resume(1); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-acked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(limit):
		t.Error("no answer after Resume")
	}
}

// Clients are told the proxy's address, so that what it does reaches them.
func TestAdvertise(t *testing.T) {
	var link *proxy.Proxy
	c := kafka.StartWith(t, kafka.Options{Advertise: func(_ int, address string) (string, error) {
		p, err := proxy.New(address)
		if err != nil {
			return "", err
		}
		link = p
		t.Cleanup(func() { _ = p.Close() })
		return p.Addr(), nil
	}})
	topic := c.Topic(t, 1, nil)
	if up, _ := link.Bytes(); up != 0 {
		t.Errorf("%d bytes of the direct way went through the proxy", up)
	}
	plain := kgo.ProducerBatchCompression(kgo.NoCompression())
	produce(t, client(t, c.Brokers(), plain), topic, strings.Repeat("x", 10_000))
	if up, _ := link.Bytes(); up < 10_000 {
		t.Errorf("only %d bytes went through the proxy", up)
	}
	if got := consume(t, c.Direct(), topic, 1); len(got) != 1 {
		t.Errorf("consumed %d values", len(got))
	}
}

func TestStartErrorShowsLog(t *testing.T) {
	one.Cluster(t).Private(t) // or skip
	_, err := kafka.Open(t.Context(), kafka.Options{Properties: []string{"num.io.threads=none"}})
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("error is %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	c := kafka.StartWith(t, kafka.Options{Dir: dir})
	c.Private(t)
	pid := c.Pid(1)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the node is still there: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
