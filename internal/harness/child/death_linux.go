package child

import "syscall"

func dieWithUs(a *syscall.SysProcAttr, s syscall.Signal) { a.Pdeathsig = s }
