package chaos_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// script is a relay that says what it got, and waits.
func script(t *testing.T, body string) chaos.Relay {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "outrider")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return chaos.Relay{Binary: bin, Env: []string{"OUTRIDER_NAME=chaos"}, Log: filepath.Join(dir, "log")}
}

func started(t *testing.T, r chaos.Relay) *chaos.Process {
	t.Helper()
	p, err := r.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestProcessGetsItsEnvironmentOnly(t *testing.T) {
	t.Setenv("OUTRIDER_STRAY", "1")
	p := started(t, script(t, `echo "$1 $OUTRIDER_NAME $OUTRIDER_HTTP_ADDR [$OUTRIDER_STRAY]"; exit 3`))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if code, err := p.Wait(ctx); code != 3 || err != nil {
		t.Errorf("exit code %d, %v; want 3", code, err)
	}
	if got, want := p.LogTail(100), "run chaos "+p.Addr()+" []\n"; got != want {
		t.Errorf("the relay said %q, want %q", got, want)
	}
}

func TestProcessIsFrozenThawedAndKilled(t *testing.T) {
	p := started(t, script(t, `trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.WaitLog(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	if err := p.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if now, peak, err := p.Memory(); err != nil || now <= 0 || peak < now {
		t.Errorf("memory is %d of %d, %v", now, peak, err)
	}
	if !p.Running() {
		t.Error("a frozen process took a signal")
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v; want 0", code, err)
	}
	q := started(t, script(t, "while :; do sleep 0.01; done"))
	q.Kill()
	if code, err := q.Wait(ctx); code != -1 || err != nil {
		t.Errorf("exit code %d, %v; want -1", code, err)
	}
}

func TestCommandFails(t *testing.T) {
	r := script(t, `echo "bad $1"; exit 1`)
	if _, err := r.Command(t.Context(), "migrate", "up"); err == nil || !strings.Contains(err.Error(), "bad migrate") {
		t.Errorf("got %v", err)
	}
}
