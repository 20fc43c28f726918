//go:build !linux

package child

import "syscall"

// dieWithUs does nothing: only Linux has a signal for the parent's death.
func dieWithUs(*syscall.SysProcAttr, syscall.Signal) {}
