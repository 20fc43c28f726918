//go:build linux || darwin

package child

import "syscall"

// freeSpace is what an unprivileged user may still write at path, in bytes.
func freeSpace(path string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
