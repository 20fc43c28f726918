package relay_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// probed is a sink that can tell whether it would work.
type probed struct {
	*memory
	err error
}

func (p probed) Probe(context.Context) error { return p.err }

// A leader whose sink is stuck lets go when, and only when, a standby reaches it.
func TestStuckLeaderYields(t *testing.T) {
	w := newWorld(t, 17)
	start := func(name string, probe error) *running {
		cfg := w.config()
		cfg.Instance, cfg.YieldAfter, cfg.WALSenderTimeout = name, time.Second, 2*time.Second
		m := &memory{}
		r := w.startWith(cfg, probed{m, probe}, m)
		return r
	}
	leader := start("leader", nil)
	leader.awaitPhase(w, "streaming")
	leader.sink.hold(true)
	w.write(1)
	start("blind", errors.New("no route")).awaitRole(relay.RoleStandby, "")
	await(t, func() error {
		if w.text(`SELECT (stuck_since < clock_timestamp() - interval '3 s')::text FROM outbox.relays`) != "true" {
			return errors.New("not stuck for three seconds yet")
		}
		return nil
	})
	if leader.Status().Role != relay.RoleLeader {
		t.Fatalf("the leader let go with nobody to take over: %+v", leader.Status())
	}
	other := start("able", nil)
	other.awaitRole(relay.RoleLeader, "")
	other.awaitValues("1")
}

// Those who wait hold no replication connection and leave no ERROR in the
// server's log; when the leader stops, one takes over within three seconds.
func TestTenRelays(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`ALTER SYSTEM SET log_line_prefix = '%m [%p] %a '`)
	w.exec(`SELECT pg_reload_conf()`)
	stopped := "nobody" // only those who wait are asked about: one that is stopped cancels what it was asking
	var all []*running
	for i := range 10 {
		cfg := w.config()
		cfg.Instance = fmt.Sprint("r", i)
		all = append(all, w.start(cfg, &memory{}))
	}
	leader := func() (l *running) {
		await(t, func() error {
			for _, r := range all {
				if r.Status().Role == relay.RoleLeader {
					l = r
					return nil
				}
			}
			return errors.New("no leader")
		})
		return l
	}
	for round := range 4 {
		l := leader()
		l.awaitPhase(w, "streaming")
		w.write(round)
		l.awaitValues(fmt.Sprint(round))
		if n := w.text(`SELECT count(*)::text FROM pg_stat_replication`); n != "1" {
			t.Errorf("%s replication connections", n)
		}
		began := time.Now()
		l.stop()
		stopped += "|" + regexp.QuoteMeta(l.Status().Instance)
		next := leader()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("takeover took %s", took)
		} else {
			t.Logf("takeover took %s", took)
		}
		if next == l {
			t.Error("the relay that was stopped leads")
		}
	}
	ended := regexp.MustCompile(`outrider/(` + stopped + `) `)
	for line := range strings.SplitSeq(w.pg.Log(), "\n") {
		if strings.Contains(line, "ERROR") && !ended.MatchString(line) {
			t.Errorf("server: %s", line)
		}
	}
}

// TestStandbyLooksOverOneConnection: a connection is a process of the server,
// and a relay that waits is not worth one a second.
func TestStandbyLooksOverOneConnection(t *testing.T) {
	w := newWorld(t, 18)
	w.start(w.config(), &memory{}).awaitRole(relay.RoleLeader, "")
	cfg := w.config()
	cfg.Instance = "waiting"
	w.start(cfg, &memory{}).awaitRole(relay.RoleStandby, "slot_held")
	looked, pids := map[string]bool{}, map[string]bool{}
	await(t, func() error {
		if at := w.text(`SELECT max(query_start)::text FROM pg_stat_activity WHERE application_name = 'outrider/waiting'`); at != "" {
			looked[at] = true
			pids[w.text(`SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'outrider/waiting'`)] = true
		}
		if len(looked) < 6 {
			return fmt.Errorf("%d looks", len(looked))
		}
		return nil
	})
	if len(pids) != 1 {
		t.Errorf("%d looks over the connections of %v", len(looked), pids)
	}
}
