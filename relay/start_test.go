package relay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// A row that was written before the slot's start and committed while the slot
// was made is in the snapshot, and will not be streamed. Looking into the table
// before would not show it.
func TestRowThatCommitsWhileTheSlotIsMade(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		w := newWorld(t, major)
		other := postgres.Connect(t, w.pg.URL())
		if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO outbox.events (topic, payload) VALUES ('t', '1')`); err != nil {
			t.Fatal(err)
		}
		r := w.start(w.config(), &memory{})
		r.awaitRole(relay.RoleWaiting, "transactions")
		if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		r.awaitValues("1")
		w.write(2)
		r.awaitValues("1", "2")
	})
}

// A relay that died while it made its slot starts over: a slot beside a row in
// phase creating was never streamed from, and nobody knows where it begins.
func TestUnfinishedStartIsBegunAgain(t *testing.T) {
	for name, slot := range map[string]string{
		"row only":     ``,
		"row and slot": `SELECT pg_create_logical_replication_slot('outrider_test', 'pgoutput')`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 16)
			w.exec(`INSERT INTO outbox.relays (slot, contract, system_id, timeline, phase) VALUES ('outrider_test', 1, '1', 1, 'creating')`)
			if slot != "" {
				w.exec(slot)
			}
			before := w.text(`SELECT max(confirmed_flush_lsn)::text FROM pg_replication_slots`)
			w.exec(`CREATE TABLE noise AS SELECT 1`)
			r := w.start(w.config(), &memory{})
			r.awaitRole(relay.RoleLeader, "")
			if after := w.text(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots`); after == before {
				t.Errorf("the slot of the unfinished start is still there, at %s", after)
			}
			w.write(1)
			r.awaitValues("1")
		})
	}
}

// Of relays that start at the same moment one makes the slot, and the others stand by.
func TestRelaysThatStartTogether(t *testing.T) {
	w := newWorld(t, 18)
	var all []*running
	for i := range 4 {
		cfg := w.config()
		cfg.Instance = fmt.Sprint("r", i)
		all = append(all, w.start(cfg, &memory{}))
	}
	await(t, func() error {
		leaders := 0
		for _, r := range all {
			switch s := r.Status(); s.Role {
			case relay.RoleLeader:
				leaders++
			case relay.RoleStandby:
			default:
				return fmt.Errorf("role %s, %s", s.Role, s.Error)
			}
		}
		if leaders != 1 {
			return fmt.Errorf("%d leaders", leaders)
		}
		return nil
	})
	w.write(1)
	await(t, func() error {
		n := 0
		for _, r := range all {
			n += len(r.sink.values())
		}
		if n != 1 {
			return fmt.Errorf("the row arrived %d times", n)
		}
		return nil
	})
}

// A leadership whose row was taken over confirms nothing any more.
func TestRaisedEpochEndsALeadership(t *testing.T) {
	w := newWorld(t, 17)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.write(1)
	r.awaitValues("1")
	r.sink.hold(true)
	before := r.Status()
	w.exec(`UPDATE outbox.relays SET epoch = epoch + 10`)
	w.write(2)
	r.sink.hold(false) // settled, so that the row is to be written
	await(t, func() error {
		if s := r.Status(); s.Role != relay.RoleLeader || s.Epoch <= before.Epoch+10 {
			return fmt.Errorf("epoch %d, role %s; want one above %d", s.Epoch, s.Role, before.Epoch+10)
		}
		return nil
	})
	await(t, func() error { // somebody else led, for all we know: what was settled then may come again
		got := r.sink.values()
		if got[len(got)-1] != "2" {
			return fmt.Errorf("arrived: %v", got)
		}
		return nil
	})
}

// A wrong password is told, and a corrected file is enough to go on.
func TestWrongPassword(t *testing.T) {
	pg := postgres.StartWith(t, postgres.Options{Major: 18, Auth: postgres.AuthScram})
	w := &world{t: t, pg: pg, db: postgres.Connect(t, pg.URL())}
	w.migrate(w.db)
	w.exec(`CREATE ROLE app_relay LOGIN REPLICATION SUPERUSER PASSWORD 'right'`)
	url := func(password string) string {
		_, host, _ := strings.Cut(pg.URL(), "@")
		return "postgres://app_relay:" + password + "@" + host
	}
	file := filepath.Join(t.TempDir(), "url")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(url(password)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("planted-secret")
	cfg := w.config()
	cfg.DatabaseURL = secret.FromFile(file)
	r := w.start(cfg, &memory{})
	s := r.awaitRole(relay.RoleHalted, "authentication")
	if strings.Contains(fmt.Sprintf("%+v", s), "planted-secret") {
		t.Errorf("the password is told: %+v", s)
	}
	write("right")
	r.awaitRole(relay.RoleLeader, "")
	w.write(1)
	r.awaitValues("1")
}

// What is on /metrics, and that it moves.
func TestMetrics(t *testing.T) {
	w := newWorld(t, 18)
	r := w.start(w.config(), &memory{})
	r.awaitRole(relay.RoleLeader, "")
	w.exec(`INSERT INTO outbox.events (topic, key, payload) VALUES ('t', 'key', '"four"')`)
	r.awaitValues(`"four"`)
	want := map[string]float64{
		"outrider_events_published_total t": 1, "outrider_published_bytes_total t": 9, "outrider_sessions_total": 1,
		"outrider_in_flight_rows": 0, "outrider_in_flight_bytes": 0, "outrider_oldest_unpublished_seconds": 0,
		"outrider_role leader": 1, "outrider_role halted": 0, "outrider_replication_lag_seconds": 0,
	}
	await(t, func() error {
		got := gather(t, r.registry)
		var errs []error
		for name, value := range want {
			if v, ok := got[name]; !ok || v != value {
				errs = append(errs, fmt.Errorf("%s is %v (there: %v), want %v", name, v, ok, value))
			}
		}
		for _, name := range []string{"outrider_received_lsn", "outrider_confirmed_lsn", "outrider_commit_to_ack_seconds"} {
			if got[name] <= 0 {
				errs = append(errs, fmt.Errorf("%s is %v", name, got[name]))
			}
		}
		for _, name := range []string{"outrider_replication_lag_bytes"} {
			if _, ok := got[name]; !ok {
				errs = append(errs, fmt.Errorf("no %s", name))
			}
		}
		return errors.Join(errs...)
	})
}

// gather returns gauges and counters by name and label value, and counts of histograms.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}
