package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// environment of all programs: nothing of ours, such as PGDATA, may leak in.
func environment() []string {
	return []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
}

// template returns a data folder of that build to copy, made on first use.
func template(ctx context.Context, b build, id identity) (string, error) {
	st, err := os.Stat(filepath.Join(b.bin, "postgres"))
	if err != nil {
		return "", err
	}
	// Another binary in the same place may have another catalog.
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, b.bin, st.Size(), st.ModTime().UnixNano())
	target := filepath.Join(download.Cache(id.foreign()), fmt.Sprintf("template-%d-%016x", b.major, h.Sum64()))
	err = download.Once(ctx, target, func(tmp string) error { return initdb(ctx, b, id, tmp) })
	if err != nil {
		return "", fmt.Errorf("make a template: %w", err)
	}
	return target, nil
}

func initdb(ctx context.Context, b build, id identity, dir string) error {
	if err := id.own(dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, environment(), id.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// transient is what a copy of a running server leaves out, as pg_basebackup
// does: folders stay, empty. Slots above all: a copied one would hold WAL that
// nobody asks for.
func transient() []string {
	return []string{
		"postmaster.pid", "postmaster.opts", "pg_replslot", "pg_dynshmem", "pg_notify",
		"pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
	}
}

// copyData copies a data folder for the server's user. The source may be in
// use: what vanishes meanwhile was not needed.
func copyData(src, dst string, id identity) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		skip := slices.Contains(transient(), name)
		to := filepath.Join(dst, name)
		switch {
		case d.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
		case skip, !d.Type().IsRegular():
			return nil
		default:
			if err := copyFile(path, to); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if err := id.own(to); err != nil || !skip {
			return err
		}
		return fs.SkipDir
	})
}

func copyFile(src, dst string) error {
	r, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	w, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
