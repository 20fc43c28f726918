// Package harness says what a test does that needs a server which is not
// there: it skips, with the reason and the way to mend it, or it fails where
// somebody asked for the whole suite. The servers themselves are in the
// packages below: postgres, kafka, proxy.
//
// It promises that no test passes because its server was missing. It does not
// know any server.
package harness

import (
	"os"
	"testing"
)

// RequireServers is the variable that makes a missing server a failure; any
// value but the empty one does. CI sets it.
const RequireServers = "TEST_REQUIRE_SERVERS"

// Missing ends the test because of err, which says which server could not be
// had and what to type to get it: a failure with [RequireServers], otherwise a skip.
func Missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv(RequireServers) != "" {
		tb.Fatalf("%s is set: %v", RequireServers, err)
	}
	tb.Skip(err)
}
