package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// Also after a crash, which itself leaves shared memory behind.
func TestCloseLeavesNothing(t *testing.T) {
	s := postgres.Start(t, 0)
	s.Private(t)
	text, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, dir := s.Pid(), s.Dir()
	segment := strings.Fields(strings.Split(string(text), "\n")[6])[1]
	if !segmentExists(t, segment) {
		t.Errorf("no segment %s while the server runs", segment)
	}
	if err := s.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the postmaster is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Errorf("the files are still there: %v", err)
	}
	if segmentExists(t, segment) {
		t.Errorf("segment %s is still there", segment)
	}
}

// segmentExists looks for the id of a System V segment where Linux lists them.
func segmentExists(t *testing.T, id string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 4 && words[1] == id {
			return true
		}
	}
	return false
}

// A killed owner takes its server along, and the next one clears its files away.
func TestOwnerIsKilled(t *testing.T) {
	postgres.Start(t, 0).Private(t) // or skip
	const owner = "TEST_IS_OWNER"
	if os.Getenv(owner) != "" {
		s := postgres.Start(t, 0)
		fmt.Println("owner of", s.Pid(), s.Dir())
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOwnerIsKilled$")
	cmd.Env = append(os.Environ(), owner+"=1")
	out, _ := cmd.CombinedOutput() // ends by SIGKILL
	var pid int
	var dir string
	_, line, _ := strings.Cut(string(out), "owner of ")
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deadline := time.After(limit)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("server %d outlives its owner", pid)
		}
	}
	postgres.Start(t, 0)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the files are still there: %v", err)
	}
}
