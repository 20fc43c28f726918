package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// Server is one server, running or stopped. Methods that start or end it are
// for one goroutine at a time; all others may be called from any.
type Server struct {
	build  build
	id     identity
	folder *child.Folder
	port   int // also the suffix of the socket
	access access
	shared *shared // instead of all the above: somebody else's server

	mu      sync.Mutex
	process *child.Process
}

// ErrShared is what methods return that need a server of our own, when the
// environment named one that runs already.
var ErrShared = errors.New("the server is shared: it came as a URL from the environment")

// Open starts a new server and returns when it accepts connections. ctx bounds
// the start, downloads included, not the server's life. The error wraps
// [ErrNoBuild] if there is no Postgres to be had.
func Open(ctx context.Context, o Options) (*Server, error) { return openAs(ctx, o, whoRuns(ctx)) }

func openAs(ctx context.Context, o Options, id identity) (*Server, error) {
	b, err := find(ctx, &o, id)
	if err != nil {
		return nil, err
	}
	if b.url != "" {
		return openShared(ctx, b, &o)
	}
	source, err := template(ctx, b, id)
	if err != nil {
		return nil, err
	}
	s, err := create(b, id, o.Dir, source)
	if err != nil {
		return nil, err
	}
	if err := s.configure(ctx, &o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// configure makes the settings and starts the server for the first time.
func (s *Server) configure(ctx context.Context, o *Options) error {
	if err := s.Set("listen_addresses=127.0.0.1", "unix_socket_directories="+s.folder.Path()); err != nil {
		return err
	}
	if err := s.Set(o.settings()...); err != nil {
		return err
	}
	if err := s.restrict(o); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.setPassword(ctx)
}

// create makes a server that was never started, its data copied from source.
func create(b build, id identity, parent, source string) (*Server, error) {
	folder, err := child.NewFolder(parent, "outrider-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{build: b, id: id, folder: folder}
	s.port, err = child.FreePort()
	err = errors.Join(err, id.own(folder.Path()), copyData(source, s.Dir(), id))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a server: %w", err), folder.Remove())
	}
	return s, nil
}

// Major is the major version.
func (s *Server) Major() int { return s.build.major }

// Port is the TCP port on 127.0.0.1; it stays the same for the server's life.
func (s *Server) Port() int { return s.port }

// Dir is the data folder; "" if the server is shared.
func (s *Server) Dir() string {
	if s.shared != nil {
		return ""
	}
	return filepath.Join(s.folder.Path(), "data")
}

// BinDir is the folder of the server's programs; fetched builds have no psql or
// pgbench there, the distribution's have. "" if the server is shared.
func (s *Server) BinDir() string { return s.build.bin }

// Log is what the server has logged so far, over all its starts.
func (s *Server) Log() string {
	if s.shared != nil {
		return ""
	}
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *Server) logFile() string { return filepath.Join(s.folder.Path(), "log") }

// Set appends name=value settings to postgresql.conf, where the last one wins.
// They hold from the next start or [Server.Reload] on.
func (s *Server) Set(settings ...string) error {
	if s.shared != nil {
		return ErrShared
	}
	var b bytes.Buffer
	for _, setting := range settings {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return fmt.Errorf("setting %q is not name=value", setting)
		}
		_, _ = fmt.Fprintf(&b, "%s = '%s'\n", strings.TrimSpace(name), strings.ReplaceAll(strings.TrimSpace(value), "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(s.Dir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	return errors.Join(err, f.Close())
}

// Reload makes the server read its files again. It does so a moment later:
// wait for SHOW to tell.
func (s *Server) Reload() error {
	p, err := s.running()
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGHUP)
}

// Pid is the postmaster's process id; 0 if it does not run or is shared.
func (s *Server) Pid() int {
	p, err := s.running()
	if err != nil {
		return 0
	}
	return p.Pid()
}

var errStopped = errors.New("the server does not run")

// running returns the process, or why there is none.
func (s *Server) running() (*child.Process, error) {
	if s.shared != nil {
		return nil, ErrShared
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || !s.process.Running() {
		return nil, errStopped
	}
	return s.process, nil
}

// startLimit is for a start that recovers from a crash on a busy machine.
const startLimit = 2 * time.Minute

// Start starts the server again on its data, after a crash too, and returns
// when it accepts connections. A server that runs is left alone.
func (s *Server) Start(ctx context.Context) error {
	if _, err := s.running(); !errors.Is(err, errStopped) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for range 5 {
		err := s.launch(ctx)
		if err == nil || !s.lostPort() {
			return err
		}
	}
	return fmt.Errorf("start postgres: port %d is taken", s.port)
}

// lostPort reports whether the start failed since another process took the port
// between our choice and now, and chooses another; only before anybody knows the URL.
func (s *Server) lostPort() bool {
	log := s.Log()
	if !strings.Contains(log, "could not bind") || strings.Contains(log, "ready to accept connections") {
		return false
	}
	port, err := child.FreePort()
	if err != nil {
		return false
	}
	s.port = port
	return os.Truncate(s.logFile(), 0) == nil
}

func (s *Server) launch(ctx context.Context) error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// No pg_ctl: it hides the postmaster, which we want to signal and to outlive.
	// And no context: none bounds its life.
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.build.bin, "postgres"), "-D", s.Dir(), "-p", strconv.Itoa(s.port))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.folder.Path(), environment(), log, log
	cmd.SysProcAttr = s.id.attributes()
	p, err := child.Start(cmd, syscall.SIGQUIT) // immediate shutdown: its children go with it
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	if err := s.ready(ctx, p); err != nil {
		return fmt.Errorf("start postgres: %w\n%s", err, tail(s.Log(), 20))
	}
	return nil
}

// ready waits for the state in line 8 of postmaster.pid, which the postmaster
// writes when it accepts connections: "ready", or "standby" on a hot standby.
func (s *Server) ready(ctx context.Context, p *child.Process) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		lines := strings.Split(string(text), "\n")
		if len(lines) > 7 && s.isPid(lines[0], p) {
			if state := strings.TrimSpace(lines[7]); state == "ready" || state == "standby" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("it ended: %w", p.Err())
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), p.Stop(context.WithoutCancel(ctx), syscall.SIGQUIT))
		}
	}
}

// isPid guards against the file of an earlier, crashed run.
func (s *Server) isPid(line string, p *child.Process) bool {
	return strings.TrimSpace(line) == strconv.Itoa(p.Pid())
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
