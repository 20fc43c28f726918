package download_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

func TestOnce(t *testing.T) {
	target := filepath.Join(t.TempDir(), "cache", "thing")
	var calls atomic.Int32
	fill := func(tmp string) error {
		calls.Add(1)
		if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the target is there too early: %v", err)
		}
		return os.WriteFile(filepath.Join(tmp, "file"), []byte("x"), 0o600)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := download.Once(t.Context(), target, fill); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(target, "file")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("filled %d times", calls.Load())
	}
}

func TestOnceFails(t *testing.T) {
	parent := t.TempDir()
	target := filepath.Join(parent, "thing")
	// What a process left that was killed while it filled.
	if err := os.Mkdir(target+".tmp123", 0o700); err != nil {
		t.Fatal(err)
	}
	calls := 0
	broken := errors.New("no network")
	fill := func(tmp string) error {
		calls++
		return errors.Join(os.WriteFile(filepath.Join(tmp, "half"), nil, 0o600), broken)
	}
	if err := download.Once(t.Context(), target, fill); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
	if err := download.Once(t.Context(), target, fill); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("second error is %v", err)
	}
	if calls != 1 {
		t.Errorf("tried %d times within a minute", calls)
	}
	if left, _ := filepath.Glob(target + ".tmp*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A minute later it is tried again.
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(target+".failed", past, past); err != nil {
		t.Fatal(err)
	}
	if err := download.Once(t.Context(), target, func(string) error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(target); err != nil {
		t.Error(err)
	}
}

func TestOnceGivesUpWaiting(t *testing.T) {
	target := filepath.Join(t.TempDir(), "thing")
	inside, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(leave)
	wg.Go(func() {
		_ = download.Once(t.Context(), target, func(string) error {
			close(inside)
			<-leave
			return nil
		})
	})
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := download.Once(ctx, target, func(string) error { t.Error("two fill at once"); return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

func TestCache(t *testing.T) {
	t.Setenv(download.CacheDir, "")
	t.Setenv("XDG_CACHE_HOME", "/users/cache")
	t.Setenv("HOME", "/users/home")
	if got := download.Cache(false); !strings.HasPrefix(got, "/users/") {
		t.Errorf("private cache is %s", got)
	}
	if got := download.Cache(true); !strings.HasPrefix(got, os.TempDir()) {
		t.Errorf("public cache is %s", got)
	}
	t.Setenv(download.CacheDir, "/elsewhere")
	if download.Cache(false) != "/elsewhere" || download.Cache(true) != "/elsewhere" {
		t.Error("the variable does not count")
	}
}

// archive makes a .tgz.
func archive(t *testing.T, headers ...*tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 1
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tgz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTgz(t *testing.T) {
	path := archive(t,
		&tar.Header{Name: "package/native/bin/run", Typeflag: tar.TypeReg, Mode: 0o700},
		&tar.Header{Name: "package/native/bin/link", Typeflag: tar.TypeSymlink, Linkname: "run"},
		&tar.Header{Name: "package/native/empty/", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "package/README", Typeflag: tar.TypeReg, Mode: 0o600},
		&tar.Header{Name: "package/nativity", Typeflag: tar.TypeReg, Mode: 0o600})
	dir := t.TempDir()
	if err := download.Tgz(path, dir, "package/native"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "bin", "link"))
	if err != nil || st.Mode().Perm() != 0o744 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "empty")); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("unpacked %v %v", entries, err)
	}
}

func TestTgzStaysInside(t *testing.T) {
	for name, headers := range map[string][]*tar.Header{
		"dots": {{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o600}},
		"link": {
			{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."},
			{Name: "out/evil", Typeflag: tar.TypeReg, Mode: 0o600},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "in")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := download.Tgz(archive(t, headers...), dir, ""); err == nil {
				t.Error("no error")
			}
			if _, err := os.Stat(filepath.Join(dir, "..", "evil")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it got out: %v", err)
			}
		})
	}
}

func TestJarWithoutArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(zip.NewWriter(f).Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := download.JarOfTxz(path, t.TempDir()); err == nil {
		t.Error("no error")
	}
}
