package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// TempDir is the variable that names the parent of all servers' folders. Keep
// it short: a path to a Unix socket may have 107 bytes.
const TempDir = "TEST_TMPDIR"

// enough is the free space in bytes below which memory is not used for data.
// Containers often give /dev/shm 64 MiB, which one server fills.
const enough = 2 << 30

// Scratch is the folder below which servers keep their data: that of [TempDir];
// else memory, where a copy of a template is three to ten times faster; else
// the temporary folder.
func Scratch() string {
	if d := os.Getenv(TempDir); d != "" {
		return d
	}
	const memory = "/dev/shm"
	if n, err := freeSpace(memory); err == nil && n >= enough && syscall.Access(memory, 2) == nil {
		return memory
	}
	return os.TempDir()
}

// Folder is a folder of one process, which holds a lock on a file in it for as
// long as it lives.
type Folder struct {
	path  string
	owner *os.File
}

const ownerFile = "owner.lock"

// NewFolder makes a folder below parent ("" is [Scratch]) whose name begins
// with prefix, and removes those that dead processes left there. Everybody may
// pass through it; what lies in it says itself who may read it.
func NewFolder(parent, prefix string) (*Folder, error) {
	if parent == "" {
		parent = Scratch()
	}
	sweep(parent, prefix)
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, fmt.Errorf("make a folder for a server: %w", err)
	}
	f := &Folder{path: path}
	if err := f.claim(); err != nil {
		return nil, errors.Join(fmt.Errorf("claim %s: %w", path, err), f.Remove())
	}
	return f, nil
}

// claim locks the owner's file before it gets its name: whoever sees the name
// and gets the lock knows that the owner is dead.
func (f *Folder) claim() error {
	if err := os.Chmod(f.path, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(f.path, "owner")
	if err != nil {
		return err
	}
	f.owner = file
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(f.path, ownerFile))
}

// Path is the folder.
func (f *Folder) Path() string { return f.path }

// Remove removes the folder with all that is in it.
func (f *Folder) Remove() error {
	err := os.RemoveAll(f.path)
	if f.owner != nil {
		err = errors.Join(err, f.owner.Close())
		f.owner = nil
	}
	return err
}

// sweep removes what dead processes left. It is a courtesy: an error, such as
// that of a folder which belongs to another user, stays without consequence.
func sweep(parent, prefix string) {
	names, _ := filepath.Glob(filepath.Join(parent, prefix+"*", ownerFile))
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			continue
		}
		if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(name))
		}
		_ = file.Close()
	}
}
