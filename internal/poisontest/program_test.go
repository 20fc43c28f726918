package poisontest_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/relay"
)

// program is the binary as people run it, in this world.
func (w *world) program(policy string) chaos.Relay {
	w.t.Helper()
	return chaos.Relay{
		Binary: built.get(w.t), Log: filepath.Join(w.t.TempDir(), "relay.log"),
		Env: []string{
			"OUTRIDER_DATABASE_URL=" + w.url, "OUTRIDER_NAME=" + w.name, "OUTRIDER_KAFKA_BROKERS=" + strings.Join(w.cluster.Brokers(), ","),
			"OUTRIDER_DELIVERY=" + w.delivery, "OUTRIDER_POISON=" + policy, "OUTRIDER_WAL_SENDER_TIMEOUT=2s", "OUTRIDER_RETENTION=0",
			"OUTRIDER_KAFKA_TRANSACTION_TIMEOUT=15s",
		},
	}
}

func (w *world) run(r chaos.Relay) *chaos.Process {
	w.t.Helper()
	p, err := r.Start()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("end of the relay's log:\n%s", p.LogTail(6000))
		}
		p.Kill()
	})
	return p
}

// awaitStatus waits until /status is as ok wants it.
func awaitStatus(t *testing.T, p *chaos.Process, ok func(chaos.Status) bool) {
	t.Helper()
	await(t, func() error {
		s, err := p.Status(t.Context())
		if err == nil && !ok(s) {
			err = fmt.Errorf("role %s, reason %s, %d sessions", s.Role, s.Reason, s.Sessions)
		}
		return err
	})
}

func halted(s chaos.Status) bool { return s.Role == "halted" && s.Reason == "poison" }

// The relay is killed in the middle of the search, and again when it waits at
// the row: each time another one goes on from what is written down.
func TestKilledInTheSearchAndAtTheRow(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		outrider := w.program(relay.PoisonHalt)
		p := w.run(outrider)
		w.arrives(w.write("first", 10))
		w.cluster.SetTopic(w.t, w.topic, "cleanup.policy=compact")
		w.hide()
		bad, last := w.writeCrowd(crowd/3, `n = 2718`, keyless)
		awaitStatus(t, p, func(s chaos.Status) bool { return s.Reason == "poison_search" && s.Sessions >= 4 })
		p.Kill()
		w.inTheMiddle()

		p = w.run(outrider)
		awaitStatus(t, p, halted)
		w.awaitDead(states(bad, "halted"))
		p.Kill()

		p = w.run(outrider)
		awaitStatus(t, p, halted)
		w.awaitDead(states(bad, "halted"))
		if out, err := outrider.Command(t.Context(), "deadletter", "skip", bad[0]); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		w.arrives(last)
		w.awaitDead(states(bad, "skipped"))
		stop(t, p)
		w.verify()
	})
}

func stop(t *testing.T, p *chaos.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(ctx); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
}
