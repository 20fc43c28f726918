package postgres

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Clone makes what a snapshot of the storage makes: another server with all
// data of this moment, the slots included, of the same system and timeline. It
// is not started yet. The caller closes it.
func (s *Server) Clone(ctx context.Context) (*Server, error) {
	if _, err := s.running(); err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	clone, err := s.backup(ctx, "", "")
	if err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	slots := "pg_replslot"
	folders, err := filepath.Glob(filepath.Join(s.Dir(), slots, "*"))
	for _, folder := range folders {
		err = errors.Join(err, copyData(folder, filepath.Join(clone.Dir(), slots, filepath.Base(folder)), s.id))
	}
	// WAL of the backup's last moments: the copy ends before the backup did.
	err = errors.Join(err, s.copyWAL(clone), clone.Set("unix_socket_directories="+clone.folder.Path()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clone: %w", err), clone.Close())
	}
	return clone, nil
}

func (s *Server) copyWAL(to *Server) error {
	segments, err := filepath.Glob(filepath.Join(s.Dir(), "pg_wal", "0*"))
	for _, segment := range segments {
		target := filepath.Join(to.Dir(), "pg_wal", filepath.Base(segment))
		err = errors.Join(err, copyFile(segment, target), s.id.own(target))
	}
	return err
}

// ErrNoTool means that a program of Postgres is not there: fetched builds have none but the server.
var ErrNoTool = errors.New("no such program beside the server")

// Tool returns the path of a program such as pg_dump, or an error that wraps [ErrNoTool].
func (s *Server) Tool(name string) (string, error) {
	path, err := exec.LookPath(filepath.Join(s.BinDir(), name))
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", name, ErrNoTool, err)
	}
	return path, nil
}

// Upgrade makes a new cluster of the same build and moves the data of s, which
// has to be stopped, into it by pg_upgrade: transaction ids stay, the system
// identifier does not. The new server is not started. The caller closes it.
func (s *Server) Upgrade(ctx context.Context, settings ...string) (*Server, error) {
	program, err := s.Tool("pg_upgrade")
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	next, err := createEmpty(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, "-U", "postgres", "-b", s.BinDir(), "-B", s.BinDir(), "-d", s.Dir(), "-D", next.Dir(),
		"-s", next.folder.Path(), "-p", fmt.Sprint(next.port), "-P", fmt.Sprint(next.port+1))
	cmd.Dir, cmd.Env, cmd.SysProcAttr = next.folder.Path(), environment(), s.id.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("pg_upgrade: %w: %s", err, tail(string(out), 30)), next.Close())
	}
	if err := next.Set(append((&Options{Settings: settings}).settings(), "listen_addresses=127.0.0.1", "unix_socket_directories="+next.folder.Path())...); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// ResetWAL runs pg_resetwal on the data of s, which has to be stopped.
func (s *Server) ResetWAL(ctx context.Context, args ...string) error {
	program, err := s.Tool("pg_resetwal")
	if err != nil {
		return fmt.Errorf("reset WAL: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, append(args, s.Dir())...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.folder.Path(), environment(), s.id.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("reset WAL: %w\n%s", err, out)
	}
	return nil
}

// Fresh starts an empty server of the same build whose system identifier is its
// own, as that of a server to which data moves. Servers of Open share theirs:
// they are copies of one template for each build. The caller closes it.
func (s *Server) Fresh(ctx context.Context, settings ...string) (*Server, error) {
	if s.shared != nil {
		return nil, fmt.Errorf("make a fresh server: %w", ErrShared)
	}
	next, err := createEmpty(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("make a fresh server: %w", err)
	}
	if err := next.configure(ctx, &Options{Settings: settings}); err != nil {
		return nil, errors.Join(fmt.Errorf("make a fresh server: %w", err), next.Close())
	}
	return next, nil
}

// createEmpty makes a server beside s whose cluster is newly made, with an identifier of its own.
func createEmpty(ctx context.Context, s *Server) (*Server, error) {
	source, err := template(ctx, s.build, s.id)
	if err != nil {
		return nil, err
	}
	next, err := create(s.build, s.id, filepath.Dir(s.folder.Path()), source)
	if err != nil {
		return nil, err
	}
	if err = empty(next.Dir()); err == nil {
		err = initdb(ctx, s.build, s.id, next.Dir())
	}
	if err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}
