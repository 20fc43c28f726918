package chaos_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// What Kafka's side may lack at the start is waited for, and /status says what
// it is and how to get it. When it is there nothing was lost or skipped.
func TestWaitsForBrokerAndTopic(t *testing.T) {
	server := postgres.Start(t, 0)
	migrate(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	broker := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := chaos.Relay{
		Binary: binary(t), Log: filepath.Join(t.TempDir(), "relay.log"),
		Env: []string{
			"OUTRIDER_DATABASE_URL=" + server.URL(), "OUTRIDER_NAME=chaos", "OUTRIDER_KAFKA_BROKERS=" + broker,
			"OUTRIDER_LOG_FORMAT=json", "OUTRIDER_SLOOT=x",
		},
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	says := func(words ...string) {
		t.Helper()
		var body []byte
		until(ctx, t, "/status says "+strings.Join(words, ", "), func() bool {
			body, _ = p.Get(ctx, "/status")
			for _, w := range words {
				if !strings.Contains(string(body), w) {
					return false
				}
			}
			return true
		})
		t.Logf("%s", body)
	}
	says("kafka_unreachable", broker)
	execute(t, server.URL(), `INSERT INTO outbox.events (topic, key, payload) VALUES ('later', 'k', '1'), ('here', 'k', '1')`)

	cluster, err := kfake.NewCluster(kfake.Ports(port), kfake.SeedTopics(1, "here"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	says("topic_missing", "later", "kafka-topics.sh --bootstrap-server "+broker+" --create --topic 'later'")
	reader := reading(t, chaos.ReaderConfig{Brokers: []string{broker}, Topics: []string{"here"}})
	if err := reader.WaitRows(ctx, 1); err != nil {
		t.Errorf("a topic that exists waits for one that does not: %v", err)
	}

	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, "later"); err != nil {
		t.Fatal(err)
	}
	later := reading(t, chaos.ReaderConfig{Brokers: []string{broker}, Topics: []string{"later"}})
	if err := later.WaitRows(ctx, 1); err != nil {
		t.Error(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(ctx); code != 0 || err != nil {
		t.Errorf("the relay ended with %d, %v", code, err)
	}
	if log := p.LogTail(1 << 20); !strings.Contains(log, "OUTRIDER_SLOOT") || !strings.Contains(log, "OUTRIDER_SLOT") {
		t.Errorf("no word of the misspelt variable in the log:\n%s", log)
	}
}

// A second SIGTERM ends a relay that drains at once, with 0 and the number left.
func TestSecondSignalLeavesAtOnce(t *testing.T) {
	server := postgres.Start(t, 0)
	migrate(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	p, err := chaos.Relay{
		Binary: binary(t), Log: filepath.Join(t.TempDir(), "relay.log"),
		Env: []string{
			"OUTRIDER_DATABASE_URL=" + server.URL(), "OUTRIDER_NAME=chaos", "OUTRIDER_LOG_FORMAT=json",
			"OUTRIDER_KAFKA_BROKERS=" + cluster.ListenAddrs()[0], "OUTRIDER_SHUTDOWN_TIMEOUT=50s",
		},
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	until(ctx, t, "the relay leads", func() bool {
		s, err := p.Status(ctx)
		return err == nil && s.Role == "leader"
	})
	execute(t, server.URL(), `INSERT INTO outbox.events (topic, payload) VALUES ('absent', '1'), ('absent', '2')`)
	until(ctx, t, "two rows wait for their topic", func() bool {
		s, err := p.Status(ctx)
		return err == nil && s.InFlightRows == 2
	})
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitLog(ctx, `"stopping"`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code, err := p.Wait(ctx)
	if code != 0 || err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("ended with %d, %v after %s", code, err, time.Since(began))
	}
	if log := p.LogTail(1 << 20); !strings.Contains(log, `"unconfirmed_rows":2`) {
		t.Errorf("the log does not say that two rows are left:\n%s", log)
	}
}
