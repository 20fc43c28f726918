package kafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// WaitInSync waits until every replica of every partition has caught up: before
// that, the death of another node could stop producers.
func (c *Cluster) WaitInSync(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Direct()...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		topics, err := admin.ListTopicsWithInternal(ctx)
		if err == nil && topics.Error() == nil && inSync(topics) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for replicas in sync: %w (last: %w)", context.Cause(ctx), err)
		}
	}
}

func inSync(topics kadm.TopicDetails) bool {
	for _, topic := range topics {
		for _, p := range topic.Partitions {
			if p.Err != nil || p.Leader < 0 || len(p.ISR) != len(p.Replicas) {
				return false
			}
		}
	}
	return true
}

// Topic makes a topic for one test, with a name of its own and as many replicas
// as the cluster has nodes, and returns the name.
func (c *Cluster) Topic(tb testing.TB, partitions int, configs map[string]string) string {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Direct()...))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	values := map[string]*string{}
	for k, v := range configs {
		values[k] = &v
	}
	name := topicName(tb.Name())
	created, err := kadm.NewClient(client).CreateTopic(tb.Context(), int32(partitions), -1, values, name)
	if err != nil {
		tb.Fatalf("make topic %s: %v", name, err)
	}
	if err := c.WaitInSync(tb.Context()); err != nil {
		tb.Fatalf("make topic %s: %v", name, err)
	}
	if c.shared != nil {
		tb.Cleanup(func() { c.removeTopic(tb, created.Topic) })
	}
	return name
}

// SetTopic changes settings, name=value, of a topic, and returns when the broker
// of a cluster of one node goes by them. The controller answers before that. A
// broker takes one change of the metadata after the other and shows each before
// it acts on it: it acted on the first once it shows the next.
func (c *Cluster) SetTopic(tb testing.TB, topic string, settings ...string) {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Direct()...))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for _, change := range [][]string{settings, {fmt.Sprintf("file.delete.delay.ms=%d", time.Now().UnixMilli())}} {
		var alter []kadm.AlterConfig
		for _, setting := range change {
			name, value, _ := strings.Cut(setting, "=")
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
		}
		results, err := admin.AlterTopicConfigs(tb.Context(), alter, topic)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			tb.Fatalf("set %q of topic %s: %v", change, topic, err)
		}
		harness.Await(tb, time.Minute, func() error { return shows(tb.Context(), admin, topic, alter) })
	}
}

func shows(ctx context.Context, admin *kadm.Client, topic string, want []kadm.AlterConfig) error {
	resources, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, c := range resources[0].Configs {
		values[c.Key] = c.MaybeValue()
	}
	for _, w := range want {
		if values[w.Name] != *w.Value {
			return fmt.Errorf("topic %s still has %s=%s, not %s", topic, w.Name, values[w.Name], *w.Value)
		}
	}
	return nil
}

// removeTopic is for a cluster that outlives the test.
func (c *Cluster) removeTopic(tb testing.TB, name string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.shared...))
	if err != nil {
		tb.Errorf("remove topic %s: %v", name, err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if _, err := kadm.NewClient(client).DeleteTopic(ctx, name); err != nil {
		tb.Errorf("remove topic %s: %v", name, err)
	}
}

// notInName is what a topic's name may not have, and the dot, which clashes
// with the underscore in names of metrics.
var notInName = regexp.MustCompile(`[^a-zA-Z0-9_-]+`)

func topicName(test string) string {
	name := notInName.ReplaceAllString(test, "_")
	return name[:min(len(name), 200)] + "-" + strings.ToLower(rand.Text()[:8])
}
