package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

const database = "shop"

// stage is what the show needs: the servers, the relay, and a folder for all files.
type stage struct {
	folder   *child.Folder
	server   *postgres.Server
	broker   *broker
	pool     *pgxpool.Pool
	relay    chaos.Relay
	outrider *chaos.Process // nil before the first start
}

// openStage builds, downloads and starts everything but Outrider.
func openStage(ctx context.Context, dir string, log io.Writer) (_ *stage, err error) {
	s := &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	files := dir
	if files == "" {
		files = os.TempDir() // not in memory as the servers' folders: a container's /dev/shm runs no programs
	}
	if s.folder, err = child.NewFolder(files, "outrider-demo-"); err != nil {
		return nil, err
	}
	g, both := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s.relay.Binary, err = build(both, s.folder.Path())
		return err
	})
	g.Go(func() (err error) {
		s.server, err = postgres.Open(both, postgres.Options{Dir: dir, Logger: downloads(log)})
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if s.server.Dir() == "" {
		return nil, fmt.Errorf("open Postgres: %w: unset %s", postgres.ErrShared, postgres.Variable(s.server.Major()))
	}
	if s.broker, err = openBroker(s.folder.Path()); err != nil {
		return nil, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return nil, err
	}
	s.relay.Log = filepath.Join(s.folder.Path(), "outrider.log")
	s.relay.Env = []string{
		"OUTRIDER_DATABASE_URL=" + s.server.DatabaseURL(database),
		"OUTRIDER_KAFKA_BROKERS=" + s.broker.address(),
		"OUTRIDER_WAL_SENDER_TIMEOUT=3s", // after a kill the next relay waits this long, for the sake of order
	}
	if _, err := s.relay.Command(ctx, "migrate", "up"); err != nil {
		return nil, err
	}
	return s, nil
}

// build compiles what people deploy: the flags are those of make build. go has
// its temporary files in dir, since it leaves them when it is ended early, and
// its compilers are in its process group, to be ended with it.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "outrider")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, chaos.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Outrider: %w\n%s", err, out)
	}
	return binary, nil
}

// downloads tells of what takes long on the first run, and of nothing else.
func downloads(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func (s *stage) openDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.server.URL())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE `+database)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	cfg, err := pgxpool.ParseConfig(s.server.DatabaseURL(database))
	if err == nil {
		cfg.MaxConns = services
		s.pool, err = pgxpool.NewWithConfig(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("connect to the shop's database: %w", err)
	}
	return nil
}

// launch starts Outrider and waits until it leads. It returns how long that took.
func (s *stage) launch(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	process, err := s.relay.Start()
	if err != nil {
		return 0, err
	}
	s.outrider = process
	err = poll(ctx, func() (bool, error) {
		if !process.Running() {
			return false, errors.New("it has ended")
		}
		status, err := process.Status(ctx)
		if err == nil && status.Role == "halted" {
			return false, errors.New("it is halted: " + status.Reason)
		}
		return err == nil && status.Role == "leader", nil // an error: it does not listen yet
	})
	if err != nil {
		return 0, fmt.Errorf("wait for Outrider to lead: %w\n%s", err, process.LogTail(4000))
	}
	return time.Since(began), nil
}

// poll asks again and again until done or an error says so, or ctx ends.
func poll(ctx context.Context, ask func() (done bool, err error)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close stops everything at once and removes all files. It may be called when
// opening failed half-way.
func (s *stage) close() (err error) {
	if s.outrider != nil {
		s.outrider.Kill()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.broker != nil {
		s.broker.stop()
	}
	if s.server != nil {
		err = s.server.Close()
	}
	if s.folder != nil {
		err = errors.Join(err, s.folder.Remove())
	}
	return err
}
