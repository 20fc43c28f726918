package child_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 10 * time.Second

func start(t *testing.T, args ...string) *child.Process {
	t.Helper()
	p, err := child.Start(exec.Command(args[0], args[1:]...), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestProcess(t *testing.T) {
	p := start(t, "sleep", "1000")
	if !p.Running() || p.Err() != nil || gone(p.Pid()) {
		t.Errorf("running %v, error %v, gone %v", p.Running(), p.Err(), gone(p.Pid()))
	}
	if group, err := syscall.Getpgid(p.Pid()); err != nil || group != p.Pid() {
		t.Errorf("its group is %d, %v", group, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGCONT); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop by a signal that does not stop: %v", err)
	}
	if err := p.Stop(t.Context(), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](p.Err())
	if p.Running() || !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("running %v, ended by %v", p.Running(), p.Err())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal after the end: %v", err)
	}
	if !gone(p.Pid()) {
		t.Error("it was not reaped")
	}
}

func TestStartError(t *testing.T) {
	if _, err := child.Start(exec.Command("/does/not/exist"), syscall.SIGKILL); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := child.FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 20 {
		t.Errorf("ports repeat: %v", ports)
	}
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("port %d: %v", port, err)
			continue
		}
		_ = l.Close()
	}
}

func TestScratch(t *testing.T) {
	t.Setenv(child.TempDir, "")
	if st, err := os.Stat(child.Scratch()); err != nil || !st.IsDir() {
		t.Errorf("%s: %v", child.Scratch(), err)
	}
	t.Setenv(child.TempDir, "/somewhere")
	if child.Scratch() != "/somewhere" {
		t.Errorf("the variable does not count: %s", child.Scratch())
	}
}
