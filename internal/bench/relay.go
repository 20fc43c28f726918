package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// modulePath is that of the relay's command.
const modulePath = "github.com/outrider-cdc/outrider"

// buildRelay compiles what people deploy: the flags are those of make build.
func (b *bench) buildRelay(ctx context.Context, name string, extra ...string) (string, error) {
	binary := filepath.Join(b.folder.Path(), name)
	args := append([]string{"build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", binary}, extra...)
	cmd := exec.CommandContext(ctx, "go", append(args, modulePath)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	return binary, nil
}

// relayProcess is a relay that runs.
type relayProcess struct {
	*child.Process
	name    string
	address string
	log     string
	rows    int
}

// relaySettings say how a relay is run.
type relaySettings struct {
	binary string
	slot   string
	sink   string
	broker *broker
	exact  bool     // exactly-once
	prefix string   // of the topic
	rows   int      // after which it is done
	extra  []string // variables

	profile string // file for a profile, if binary is one that makes it
}

// startRelay starts `outrider run`. What it writes to stdout is thrown away by
// the kernel.
func (b *bench) startRelay(s relaySettings) (*relayProcess, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	r := &relayProcess{
		name: s.slot, rows: s.rows,
		address: "127.0.0.1:" + strconv.Itoa(port),
		log:     filepath.Join(b.folder.Path(), s.slot+".log"),
	}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	cmd := exec.Command(s.binary, "run")
	cmd.Env = []string{
		"OUTRIDER_NAME=bench",
		"OUTRIDER_DATABASE_URL=" + b.db.url(),
		"OUTRIDER_SLOT=" + s.slot,
		"OUTRIDER_HTTP_ADDR=" + r.address,
		"OUTRIDER_MAX_IN_FLIGHT_BYTES=" + strconv.Itoa(budget),
		"OUTRIDER_LOG_FORMAT=text",
		"BENCH_CPU_PROFILE=" + s.profile,
	}
	if s.sink == sinkStdout {
		cmd.Env = append(cmd.Env, "OUTRIDER_SINK=stdout")
	} else {
		cmd.Env = append(cmd.Env, "OUTRIDER_SINK=kafka", "OUTRIDER_TOPIC_PREFIX="+s.prefix,
			"OUTRIDER_KAFKA_BROKERS="+strings.Join(s.broker.addresses, ","))
	}
	if s.exact {
		cmd.Env = append(cmd.Env, "OUTRIDER_DELIVERY=exactly-once")
	}
	cmd.Env = append(append(cmd.Env, s.extra...), b.options.settings...)
	cmd.Stdout, cmd.Stderr = null, log
	if r.Process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	return r, nil
}

// ended is an error if the relay has ended, with what it said.
func (r *relayProcess) ended() error {
	if r.Running() {
		return nil
	}
	return r.explain(errors.New("the relay has ended"))
}

func (r *relayProcess) explain(err error) error {
	text, _ := os.ReadFile(r.log)
	return fmt.Errorf("relay %s: %w\n%s", r.name, err, text[max(0, len(text)-4000):])
}

// finished waits until the relay has counted all rows as durable in the sink.
// It is called when the walsender has sent them, so it does not ask often.
func (r *relayProcess) finished(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	published := 0
	err := poll(ctx, 10*time.Millisecond, func() (_ bool, err error) {
		if err := r.ended(); err != nil {
			return false, err
		}
		published, err = r.published(ctx)
		return published >= r.rows, err
	})
	if err == nil && published != r.rows {
		err = errors.New("rows were published twice")
	}
	if err != nil {
		return r.explain(fmt.Errorf("published %d rows of %d: %w", published, r.rows, err))
	}
	return nil
}

// published reads outrider_events_published_total, of all topics.
func (r *relayProcess) published(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	total := 0.0
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "outrider_events_published_total{") {
			continue
		}
		_, value, _ := strings.Cut(lines.Text(), "} ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("read /metrics: %w", err)
		}
		total += n
	}
	return int(total), nil
}

func (r *relayProcess) close() error {
	r.Kill()
	return nil
}
