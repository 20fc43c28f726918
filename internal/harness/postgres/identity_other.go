//go:build !linux

package postgres

import (
	"context"
	"syscall"
)

// attributes are those with which a process takes on the identity.
func (id identity) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{}
	if id.foreign() {
		a.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	}
	return a
}

func namespaceWorks(context.Context) bool { return false }
