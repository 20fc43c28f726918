package download

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CacheDir is the variable that names the cache.
const CacheDir = "TEST_CACHE"

// Cache is the folder for builds: that of [CacheDir], else one in the user's
// cache folder, or below the temporary folder if there is none. With public it
// is always the latter: the home of root has mode 0700, and servers that run as
// somebody else cannot pass.
func Cache(public bool) string {
	if d := os.Getenv(CacheDir); d != "" {
		return d
	}
	if d, err := os.UserCacheDir(); err == nil && !public {
		return filepath.Join(d, "outrider-servers")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("outrider-servers-%d", os.Geteuid()))
}

// refusal is how long a failed attempt is remembered. Without it each test of a
// machine without network would run into the same wall again, for seconds.
const refusal = time.Minute

// Once makes the folder target by calling fill with an empty folder beside it,
// which then gets the name. It does nothing if target exists. One process at a
// time calls fill; the others wait for it, until ctx ends. An error of fill is
// told again for a minute.
func Once(ctx context.Context, target string, fill func(tmp string) error) error {
	if exists(target) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	unlock, err := lock(ctx, target+".lock")
	if err != nil {
		return fmt.Errorf("lock %s: %w", target, err)
	}
	defer unlock()
	if exists(target) {
		return nil
	}
	failed := target + ".failed"
	if st, err := os.Stat(failed); err == nil && time.Since(st.ModTime()) < refusal {
		text, _ := os.ReadFile(failed)
		return fmt.Errorf("(tried less than a minute ago) %s", text)
	}
	if err := replace(target, fill); err != nil {
		if ctx.Err() == nil {
			_ = os.WriteFile(failed, []byte(err.Error()), 0o644)
		}
		return err
	}
	_ = os.Remove(failed)
	return nil
}

// replace runs under the lock, so every folder of that name is a dead process's.
func replace(target string, fill func(tmp string) error) error {
	old, _ := filepath.Glob(target + ".tmp*")
	for _, dir := range old {
		_ = os.RemoveAll(dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), filepath.Base(target)+".tmp")
	if err != nil {
		return err
	}
	err = errors.Join(os.Chmod(tmp, 0o755), fill(tmp))
	if err == nil {
		err = os.Rename(tmp, target)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lock waits for an exclusive lock, which the kernel gives up when we die.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, file.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		}
	}
}
