package postgres

import (
	"errors"
	"os"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// The fallback for a root without user namespaces: another user runs the server.
// Who is not root cannot be somebody else, and never has to.
func TestRunsAsAnotherUser(t *testing.T) {
	id := anotherUser()
	if os.Geteuid() != 0 {
		id = whoRuns(t.Context())
	}
	s, err := openAs(t.Context(), Options{}, id)
	if errors.Is(err, ErrNoBuild) {
		harness.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.Private(t)
	if err := s.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	standby, err := s.Standby(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Error(err)
	}
	if err := standby.Close(); err != nil {
		t.Error(err)
	}
}
