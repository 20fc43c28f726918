package kafka

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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
