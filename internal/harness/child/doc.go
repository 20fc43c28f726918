// Package child keeps what a server process of the harness needs: the process
// itself, a port on loopback, and a folder for its data.
//
// It promises, on Linux, that none of these outlives us: a process is sent a
// signal by the kernel when we die, however we die, and a folder that could not
// be removed is swept by the next run. Elsewhere that holds only when Close and
// Remove are called.
//
// It knows no protocol, and it does not wait for a server to be ready.
package child
