package kafka_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// A running cluster by its bootstrap list takes topics, and gets rid of them.
func TestSharedCluster(t *testing.T) {
	host := one.Cluster(t)
	t.Setenv(kafka.Variable, strings.Join(host.Brokers(), ","))
	var topic string
	t.Run("test", func(t *testing.T) {
		c := kafka.Start(t, 1)
		if !slices.Equal(c.Brokers(), host.Brokers()) || !slices.Equal(c.Direct(), host.Brokers()) {
			t.Errorf("brokers are %v and %v", c.Brokers(), c.Direct())
		}
		topic = c.Topic(t, 2, nil)
		produce(t, client(t, c.Brokers()), topic, "a")
		for name, err := range map[string]error{
			"kill": c.Kill(1), "stop": c.Stop(t.Context(), 1), "start": c.StartNode(t.Context(), 1), "pause": c.Pause(1),
			"resume": c.Resume(1), "start all": c.StartAll(t.Context()), "stop all": c.StopAll(t.Context()),
		} {
			if !errors.Is(err, kafka.ErrShared) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	topics, err := kadm.NewClient(client(t, host.Brokers())).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if topics.Has(topic) {
		t.Errorf("topic %s is still there", topic)
	}
	for _, o := range []kafka.Options{{Nodes: 3}, {Version: kafka.Version3}, {Properties: []string{"a=b"}}} {
		if _, err := kafka.Open(t.Context(), o); !errors.Is(err, kafka.ErrShared) {
			t.Errorf("with options: %v", err)
		}
	}
}

func TestJarsFromEnvironment(t *testing.T) {
	one.Cluster(t).Private(t) // or skip; fills the cache
	if os.Getenv(kafka.Variable) == "" {
		t.Setenv(kafka.Variable, filepath.Join(download.Cache(false), "kafka-"+kafka.Version))
		t.Setenv(download.CacheDir, t.TempDir())
		kafka.Start(t, 1)
		if left, _ := filepath.Glob(filepath.Join(os.Getenv(download.CacheDir), "*")); len(left) > 0 {
			t.Errorf("jars were fetched all the same: %v", left)
		}
	}
	t.Setenv(kafka.Variable, t.TempDir())
	if _, err := kafka.Open(t.Context(), kafka.Options{}); err == nil || !strings.Contains(err.Error(), kafka.Variable) {
		t.Errorf("a folder without jars: %v", err)
	}
}

func TestNoJava(t *testing.T) {
	t.Setenv(kafka.Variable, "")
	t.Setenv("JAVA_HOME", "")
	t.Setenv("PATH", "")
	_, err := kafka.Open(t.Context(), kafka.Options{})
	if !errors.Is(err, kafka.ErrNoBuild) || !strings.Contains(err.Error(), "apt-get install default-jre-headless maven") {
		t.Errorf("error is %v", err)
	}
	if _, err := kafka.Open(t.Context(), kafka.Options{Nodes: 2}); err == nil || errors.Is(err, kafka.ErrNoBuild) {
		t.Errorf("two nodes: %v", err)
	}
}
