package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// roleVariable tells this program which of the example's services it is to be.
const roleVariable = "EXAMPLE_ROLE"

// Role is which of its services this process is; "" for the example itself.
// Main asks it first, and so does TestMain.
func Role() string { return os.Getenv(roleVariable) }

// Service is this program once more, in a role, as a process of its own. When it
// dies it is started again, as an orchestrator would do, until it is stopped.
type Service struct {
	URL string // where it serves HTTP, if it does

	role  string
	env   []string
	log   string
	mu    sync.Mutex
	now   *child.Process
	down  bool // on purpose
	ended chan struct{}
	end   context.CancelFunc
	died  int
}

// Start starts a service on a database (nil: none), with variables of its own.
// It is running when Start returns; whether it answers, Ready tells.
func (l *Lab) Start(role string, d *Database, variables ...string) (*Service, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	listen := "127.0.0.1:" + strconv.Itoa(port)
	s := &Service{
		URL: "http://" + listen, role: role, ended: make(chan struct{}), log: filepath.Join(l.folder.Path(), role+".log"),
		env: append(os.Environ(), roleVariable+"="+role, "LISTEN="+listen, "KAFKA_BROKERS="+strings.Join(l.Kafka.Brokers(), ",")),
	}
	if d != nil {
		s.env = append(s.env, "DATABASE_URL="+d.URL)
	}
	s.env = append(s.env, variables...)
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	if err := s.launch(); err != nil {
		end()
		return nil, err
	}
	go s.keep(ctx)
	l.closing(func() error { end(); <-s.ended; return nil })
	return s, nil
}

func (s *Service) launch() error {
	log, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, log, log
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = p
	return nil
}

// keep starts the service again whenever it has died, until ctx ends.
func (s *Service) keep(ctx context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.process().Kill()
			return
		case <-tick.C:
		}
		s.mu.Lock()
		dead := !s.down && !s.now.Running()
		if dead {
			s.died++
		}
		s.mu.Unlock()
		if dead {
			_ = s.launch() // that it does not come back is seen by whoever waits for it
		}
	}
}

// Kill is kill -9; the service comes back.
func (s *Service) Kill() { s.process().Kill() }

// Stop kills the service, and it stays away until Resume.
func (s *Service) Stop() {
	s.mu.Lock()
	s.down = true
	p := s.now
	s.mu.Unlock()
	p.Kill()
}

// Resume brings a stopped service back.
func (s *Service) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

// Deaths is how often it was started again.
func (s *Service) Deaths() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.died
}

// Back waits until a service that was started again so often before has died
// once more and takes connections.
func (s *Service) Back(ctx context.Context, deaths int) error {
	err := Poll(ctx, func() error {
		if s.Deaths() == deaths {
			return fmt.Errorf("%s is alive", s.role)
		}
		return nil
	})
	return errors.Join(err, s.Ready(ctx))
}

// Ready waits until the service takes connections.
func (s *Service) Ready(ctx context.Context) error {
	err := Poll(ctx, func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.URL, "http://"))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("wait for %s: %w", s.role, err), errors.New(s.Log()))
	}
	return nil
}

// Log is what the service has written, over all its lives.
func (s *Service) Log() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

func (s *Service) process() *child.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}
