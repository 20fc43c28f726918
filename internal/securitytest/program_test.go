package securitytest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/relay"
)

// patience is generous: the machine may be busy.
const patience = time.Minute

// outrider is the program, built once, before any test.
var outrider string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "outrider-securitytest-")
	if err != nil {
		panic(err)
	}
	outrider = filepath.Join(dir, "outrider")
	if out, err := exec.Command("go", "build", "-o", outrider, "github.com/outrider-cdc/outrider").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// text is what a running program has written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// program is a running "outrider run".
type program struct {
	t              *testing.T
	cmd            *exec.Cmd
	address        string
	stdout, stderr text
	ended          chan struct{}
}

// start runs the program with these variables and no others.
func start(t *testing.T, environ ...string) *program {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, address: fmt.Sprintf("127.0.0.1:%d", port), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), outrider, "run")
	p.cmd.Env = append([]string{"OUTRIDER_HTTP_ADDR=" + p.address, "OUTRIDER_LOG_FORMAT=json", "OUTRIDER_WAL_SENDER_TIMEOUT=2s", "HOME=/nonexistent"}, environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		if p.kill(syscall.SIGKILL); t.Failed() {
			t.Logf("log of the program:\n%s", tail(p.stderr.String(), 15))
		}
	})
	return p
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (p *program) kill(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // fails if it has ended
	<-p.ended
}

// run runs a command of the program to its end.
func run(t *testing.T, environ []string, args ...string) (out, errors string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), outrider, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{"HOME=/nonexistent"}, environ...), &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

type status struct {
	Role, Reason, Error, Hint string
	Conditions                []relay.Condition
}

func (p *program) get(path string) string {
	r, err := http.Get("http://" + p.address + path)
	if err != nil {
		return ""
	}
	defer func() { _ = r.Body.Close() }()
	body, _ := io.ReadAll(r.Body)
	return string(body)
}

// awaits a role and a reason: of the role, or one of the conditions.
func (p *program) awaits(role, reason string) (s status) {
	p.t.Helper()
	harness.Await(p.t, patience, func() error {
		s = status{}
		if err := json.Unmarshal([]byte(p.get("/status")), &s); err != nil {
			return err
		}
		if s.Role != role || reason != s.Reason {
			return fmt.Errorf("status %+v, want %s %s", s, role, reason)
		}
		return nil
	})
	return s
}

// refused expects the program not to lead, and its reason and error to say why.
func refused(t *testing.T, environ []string, reason, why string) {
	t.Helper()
	p := start(t, environ...)
	harness.Await(t, patience/3, func() error {
		var s status
		if err := json.Unmarshal([]byte(p.get("/status")), &s); err != nil {
			return err
		}
		if s.Role == "leader" && s.Reason == "" && len(s.Conditions) == 0 {
			return fmt.Errorf("status %+v: it was let in", s)
		}
		if s.Reason != reason || !strings.Contains(s.Error, why) {
			return fmt.Errorf("status %+v, want %s because of %q", s, reason, why)
		}
		return nil
	})
	p.kill(syscall.SIGKILL)
}
