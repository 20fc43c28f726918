package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// Mode is how a server is stopped, as pg_ctl names it.
type Mode syscall.Signal

// The three modes. Fast ends sessions, writes a checkpoint and waits until
// every walsender has sent all WAL to its client: that is what an operator
// does. Smart waits for clients to leave. Immediate does not even checkpoint.
const (
	Fast      = Mode(syscall.SIGINT)
	Smart     = Mode(syscall.SIGTERM)
	Immediate = Mode(syscall.SIGQUIT)
)

// String is the word for pg_ctl -m.
func (m Mode) String() string {
	switch m {
	case Fast:
		return "fast"
	case Smart:
		return "smart"
	default:
		return "immediate"
	}
}

// Stop stops the server and returns when it is gone; at ctx's end it returns an
// error and the server goes on stopping. One that does not run is no error.
func (s *Server) Stop(ctx context.Context, m Mode) error {
	p, err := s.running()
	if errors.Is(err, errStopped) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.Stop(ctx, syscall.Signal(m)); err != nil {
		return fmt.Errorf("stop postgres (%v): %w", m, err)
	}
	return nil
}

// Restart is a fast stop and a start.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx, Fast); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Crash kills all processes of the server at once, and returns when they are
// gone. What was committed is there after the next Start.
//
// The postmaster is frozen first, since a running one would fork and clean up;
// its children called setsid, so there is no group to kill; and a child that
// still exits holds the shared memory, at which the next start would fail with
// "pre-existing shared memory block is still in use".
func (s *Server) Crash(ctx context.Context) error {
	p, err := s.running()
	if err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(p.Pid())
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	p.Kill()
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, pid := range children {
		for alive(pid) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("crash postgres: process %d does not end: %w", pid, context.Cause(ctx))
			}
		}
	}
	return nil
}

// closeLimit is how long a server may take to stop at once.
const closeLimit = 10 * time.Second

// Close stops the server at once and removes all its files. A shared server
// only loses the database that Open made. Close may be called again.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if s.shared != nil {
		return s.shared.drop(ctx)
	}
	if err := s.Stop(ctx, Immediate); err != nil {
		if p, err := s.running(); err == nil {
			s.killAll(p)
		}
	}
	s.removeSharedMemory()
	if err := s.folder.Remove(); err != nil {
		return fmt.Errorf("remove a server's files: %w", err)
	}
	return nil
}

// removeSharedMemory removes the System V segment by which Postgres guards its
// data folder. A crashed server leaves it to the next start, and nobody else
// would ever remove it; the kernel has room for 4096. Line 7 of postmaster.pid,
// which also outlives a crash, names its key and id.
func (s *Server) removeSharedMemory() {
	text, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 7 {
		return // stopped in order, or removed already
	}
	if words := strings.Fields(lines[6]); len(words) == 2 {
		if id, err := strconv.Atoi(words[1]); err == nil {
			_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}

// killAll is for a server that does not go, such as a frozen one.
func (s *Server) killAll(p *child.Process) {
	children, _ := childrenOf(p.Pid())
	p.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
