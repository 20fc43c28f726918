package poisontest_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
		w.hide()
		w.set(w.topic, "cleanup.policy=compact")
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

// A night's story: the relay halts, status says at what and why, and names three
// ways out. Each is taken literally, for one row each, and the relay goes on.
func TestThreeWaysOutAsPrinted(t *testing.T) {
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		w.makeDead()
		outrider := w.program(relay.PoisonHalt)
		p := w.run(outrider)
		w.arrives(w.write("first", 10))
		w.set(w.topic, "max.message.bytes=2000")
		var bad []string
		for _, way := range []string{"outrider deadletter divert ", "outrider deadletter skip ", "kafka-configs.sh "} {
			id := w.write("k", 5000)
			behind := w.write("k", 10)
			w.awaitHalted(p, id)
			status, err := outrider.Command(t.Context(), "status", "--addr", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{
				"role: halted", "reason: poison", id, w.text(`SELECT position FROM outbox.dead WHERE state = 'halted'`), "max.message.bytes of the topic is 2000",
				"outrider deadletter divert " + id, "outrider deadletter skip " + id, "kafka-configs.sh ",
			} {
				if !strings.Contains(status, part) {
					t.Errorf("status does not say %q:\n%s", part, status)
				}
			}
			if way == "kafka-configs.sh " {
				w.set(w.topic, mend(t, status, w.topic))
				w.arrives(id)
			} else {
				bad = append(bad, id)
				w.paste(outrider, printed(t, status, way))
			}
			w.arrives(behind)
			awaitStatus(t, p, func(s chaos.Status) bool { return s.Role == "leader" })
		}
		if letter := w.arrivesIn(w.dead, bad[0]); len(letter.Value) < 5000 || header(letter, relay.HeaderDeadTopic) != w.topic {
			t.Errorf("dead letter: %s", headersOf(letter))
		}
		w.awaitDead(bad[0] + " dead-lettered, " + bad[1] + " skipped")
		stop(t, p)
		w.verify()
	})
}

// awaitHalted waits until the relay says that it waits at that row.
func (w *world) awaitHalted(p *chaos.Process, id string) {
	w.t.Helper()
	awaitStatus(w.t, p, halted)
	await(w.t, func() error {
		if got := w.text(`SELECT string_agg(id, ' ') FROM outbox.dead WHERE state = 'halted'`); got != id {
			return fmt.Errorf("halted at %q, not at %s", got, id)
		}
		return nil
	})
}

// printed is the line of status that begins like this.
func printed(t *testing.T, status, begin string) string {
	t.Helper()
	for line := range strings.Lines(status) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begin) {
			return line
		}
	}
	t.Fatalf("no line begins with %q:\n%s", begin, status)
	return ""
}

// paste runs a line in a shell, in the relay's environment.
func (w *world) paste(outrider chaos.Relay, line string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env = append([]string{"PATH=" + filepath.Dir(outrider.Binary)}, outrider.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}
