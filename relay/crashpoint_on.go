//go:build crashpoints

package relay

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// crashes counts down to the death of this process.
//
//nolint:gochecknoglobals // of a binary that exists for one test
var crashes atomic.Int64

// crashpoint kills the process with SIGKILL at the n-th pass of the place that
// CRASHPOINT names, as "<place>" or "<place>#<n>".
func crashpoint(place string) {
	name, nth, _ := strings.Cut(os.Getenv("CRASHPOINT"), "#")
	if name != place {
		return
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil {
		n = 1
	}
	if crashes.Add(1) == n {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal is there
	}
}
