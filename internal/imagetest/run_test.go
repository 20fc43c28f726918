package imagetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const patience = time.Minute

// container runs programs of an image as an engine would: its user, its root, its
// environment and nothing of ours; with the network of this machine.
type container struct {
	root string
	says settings
	env  []string
}

// command is the entry point with these arguments; the image's own without any.
func (c container) command(args ...string) *exec.Cmd {
	if len(args) == 0 {
		args = c.says.Config.Cmd
	}
	args = append(c.says.Config.Entrypoint[1:], args...)
	cmd := exec.CommandContext(context.Background(), c.says.Config.Entrypoint[0], args...)
	cmd.Dir, cmd.Env = "/", slices.Concat(c.env, c.says.Config.Env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

func (c container) output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("outrider %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// healthy is the image's HEALTHCHECK.
func (c container) healthy() error {
	out, err := c.command(c.says.Config.Healthcheck.Test[2:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("health check: %w: %s", err, out)
	}
	return nil
}

// checkRuns is the main job out of the image: migrate, stream, stop.
func checkRuns(t *testing.T, c container) {
	t.Helper()
	if said := c.output(t, "version"); !strings.Contains(said, version) || !strings.Contains(said, revision[:7]) {
		t.Errorf("version says %q", said)
	}
	if err := os.WriteFile(filepath.Join(c.root, "file"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("void: the root can be written to: %v", err)
	}
	server, cluster := postgres.Start(t, 0), broker.Cluster(t)
	topic := cluster.Topic(t, 3, nil)
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c.env = []string{
		"OUTRIDER_NAME=image", "OUTRIDER_DATABASE_URL=" + server.URL(), "OUTRIDER_KAFKA_BROKERS=" + strings.Join(cluster.Brokers(), ","),
		"OUTRIDER_HTTP_ADDR=127.0.0.1:" + strconv.Itoa(port),
	}
	c.output(t, "migrate", "up")
	if err := c.healthy(); err == nil {
		t.Error("healthy before it runs")
	}
	var log bytes.Buffer // read after the end only
	relay := c.command()
	relay.Stdout = &log
	relay.Stderr = relay.Stdout
	p, err := child.Start(relay, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the relay's log:\n%s", log.String())
		}
	})
	harness.Await(t, patience, c.healthy)
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid())); err != nil || !strings.Contains(string(status), "Uid:\t65532\t65532\t65532\t65532") {
		t.Errorf("the relay does not run as %d: %s, %v", nobody, status, err)
	}

	const events = 1000
	insert(t, server.URL(), topic, events)
	read(t, cluster.Brokers(), topic, events)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil || p.Err() != nil {
		t.Errorf("stopping: %v, %v", err, p.Err())
	}
	if err := c.healthy(); err == nil {
		t.Error("healthy after its end")
	}
}

func insert(t *testing.T, url, topic string, events int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `INSERT INTO outbox.events (topic, key, payload)
SELECT $1, 'k' || n % 10, to_json(n) FROM generate_series(1, $2::int) n`, topic, events); err != nil {
		t.Fatal(err)
	}
}

// read wants each event once, and those of a key in order.
func read(t *testing.T, brokers []string, topic string, events int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last := map[string]int{}
	for n := 0; n < events; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d events are on Kafka: %v", n, events, err)
		}
		for r := range fetches.RecordsAll() {
			number, err := strconv.Atoi(string(r.Value))
			if err != nil || number <= last[string(r.Key)] {
				t.Fatalf("event %q of key %s follows event %d: %v", r.Value, r.Key, last[string(r.Key)], err)
			}
			last[string(r.Key)] = number
			n++
		}
	}
}
