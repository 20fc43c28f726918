package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Module is the import path of the relay's command.
const Module = "github.com/outrider-cdc/outrider"

// Build compiles the relay into dir and returns the binary's path. Call it once
// a test binary: a build with nothing to do still takes a second.
func Build(ctx context.Context, dir string, race bool) (string, error) {
	bin := filepath.Join(dir, "outrider")
	args := []string{"build", "-buildvcs=false", "-o", bin} // version control may refuse a tree of another owner
	if race {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, Module)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	return bin, nil
}

// Relay is how a relay is run: the binary, and nothing but environment
// variables, as in production.
type Relay struct {
	Binary string
	Env    []string // NAME=value; the only ones the process gets besides PATH, HOME and TMPDIR
	Log    string   // file to which output is appended, over many lives
}

// Process is a relay that runs.
type Process struct {
	*child.Process
	addr string
	log  string
}

// Start starts `outrider run`.
func (r Relay) Start() (*Process, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	log, err := os.OpenFile(r.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the relay's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	// No context: a relay that is to end gracefully must not be killed because its starter's context ended.
	cmd := exec.CommandContext(context.Background(), r.Binary, "run")
	cmd.Env = append(r.environment(), "OUTRIDER_HTTP_ADDR="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &Process{Process: p, addr: addr, log: r.Log}, nil
}

// Command runs another command of the binary, such as `migrate up`, to its end.
func (r Relay) Command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, r.Binary, args...)
	cmd.Env = r.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("outrider %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (r Relay) environment() []string {
	env := []string{
		// A data race ends the process with its own code, instead of a line in a log that nobody reads.
		"GORACE=halt_on_error=1 exitcode=66",
	}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, r.Env...)
}

// Wait waits for the end and returns the exit code, -1 if a signal ended the process.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the relay's end: %w", context.Cause(ctx))
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.Err()); ok {
		return exit.ExitCode(), nil
	}
	return 0, p.Err()
}

// Freeze stops the process where it stands, and returns when it does: SIGSTOP
// is taken by each thread in its own time.
func (p *Process) Freeze(ctx context.Context) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		state, err := p.state()
		if err != nil {
			return err
		}
		if state == 'T' {
			return nil
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for the relay to freeze: %w", err)
		}
	}
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

// state is the process state of proc(5).
func (p *Process) state() (byte, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return 0, fmt.Errorf("read the relay's state: %w", err)
	}
	// The name in brackets may hold blanks and brackets.
	_, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):], []byte(" "))
	if len(rest) == 0 {
		return 0, fmt.Errorf("read the relay's state: %q", stat)
	}
	return rest[0], nil
}

// Memory is the resident set in bytes: now, and the highest since the start.
func (p *Process) Memory() (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, 0, fmt.Errorf("read the relay's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak, nil
}

// Addr is where the relay's HTTP server listens.
func (p *Process) Addr() string { return p.addr }

// Get fetches a path of the relay's HTTP server.
func (p *Process) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the relay: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the relay: %w", err)
	}
	return body, nil
}

// Status is the part of /status that runs look at.
type Status struct {
	Role          string `json:"role"`
	Reason        string `json:"reason"`
	Sessions      int64  `json:"sessions"`
	InFlightRows  int64  `json:"in_flight_rows"`
	InFlightBytes int64  `json:"in_flight_bytes"`
	BudgetFull    bool   `json:"budget_full"`
}

// Status asks the relay what it is doing.
func (p *Process) Status(ctx context.Context) (s Status, err error) {
	body, err := p.Get(ctx, "/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read /status: %w", err)
	}
	return s, nil
}

// WaitLog waits until the log, of all lives, contains text.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	for {
		log, err := os.ReadFile(p.log)
		if err != nil {
			return fmt.Errorf("read the relay's log: %w", err)
		}
		if bytes.Contains(log, []byte(text)) {
			return nil
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %q in the relay's log: %w", text, err)
		}
	}
}

// LogTail is the end of what the relay said, at most n bytes.
func (p *Process) LogTail(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}
