package child_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// The kernel sends the signal of the parent's death when the thread that forked
// ends. A goroutine that ends while it is locked takes its thread along.
func TestOutlivesTheThreadOfItsStarter(t *testing.T) {
	type result struct {
		thread  int
		process *child.Process
		err     error
	}
	results := make(chan result)
	go offMain(func() {
		p, err := child.Start(exec.Command("sleep", "1000"), syscall.SIGKILL)
		results <- result{syscall.Gettid(), p, err}
	})
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(r.process.Kill)
	for deadline := time.Now().Add(limit); ; runtime.Gosched() {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", r.thread)); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the thread does not end")
		}
	}
	select {
	case <-r.process.Done():
		t.Errorf("it ended with the thread: %v", r.process.Err())
	case <-time.After(100 * time.Millisecond):
	}
}

// offMain runs f locked to a thread that ends with it. The main thread never
// ends: a goroutine that finds itself there keeps it, and lets another run f.
func offMain(f func()) {
	runtime.LockOSThread()
	if syscall.Gettid() != syscall.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		offMain(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

func TestOwnerIsKilled(t *testing.T) {
	const owner = "TEST_IS_OWNER"
	if parent := os.Getenv(owner); parent != "" {
		p := start(t, "sleep", "1000")
		f, err := child.NewFolder(parent, "f-")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(p.Pid(), f.Path())
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	parent := t.TempDir()
	mine, err := child.NewFolder(parent, "f-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOwnerIsKilled$")
	cmd.Env = append(os.Environ(), owner+"="+parent)
	out, _ := cmd.CombinedOutput() // ends by SIGKILL
	var pid int
	var path string
	if _, err := fmt.Sscan(string(out), &pid, &path); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for deadline := time.Now().Add(limit); !gone(pid); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its owner", pid)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	other, err := child.NewFolder(parent, "f-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead process's folder was not removed: %v", err)
	}
	for _, f := range []*child.Folder{mine, other} {
		if _, err := os.Stat(f.Path()); err != nil {
			t.Errorf("a living process's folder was removed: %v", err)
		}
		for range 2 {
			if err := f.Remove(); err != nil {
				t.Error(err)
			}
		}
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
