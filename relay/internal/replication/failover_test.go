package replication_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// With both hosts in the address it is always the primary that is found, and a
// promotion shows in the timeline and in its history.
func TestFailover(t *testing.T) {
	for _, major := range postgres.Majors() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			primary := postgres.Start(t, major)
			standby := primary.StartStandby(t, "standby")
			address := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=postgres sslmode=disable target_session_attrs=read-write",
				standby.Port(), primary.Port())
			dial := func() (*replication.Conn, replication.System) {
				t.Helper()
				c, err := replication.Dial(t.Context(), replication.Config{URL: address, WALSenderTimeout: timeout})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				system, err := c.IdentifySystem(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return c, system
			}
			c, before := dial()
			if h, err := c.TimelineHistory(t.Context(), 1); err != nil || h != "" || before.Timeline != 1 {
				t.Errorf("timeline %d, history of the first %q, %v", before.Timeline, h, err)
			}
			if h, err := c.TimelineHistory(t.Context(), 2); err != nil || h != "" {
				t.Errorf("history of a timeline that is not there yet: %q, %v", h, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := primary.Crash(ctx); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(ctx); err != nil {
				t.Fatal(err)
			}
			c, after := dial()
			if after.ID != before.ID || after.Timeline != 2 {
				t.Errorf("after the promotion %+v, before it %+v", after, before)
			}
			h, err := c.TimelineHistory(t.Context(), 2)
			if err != nil || !regexp.MustCompile(`^1\t[0-9A-F]+/[0-9A-F]+\t`).MatchString(h) {
				t.Errorf("history %q, %v", h, err)
			}
		})
	}
}
