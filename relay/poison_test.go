package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// picky is a sink like a broker that refuses whole batches for one bad row, and
// whatever was sent behind it.
type picky struct {
	mu      sync.Mutex
	refuses func(topic, value string) bool
	waits   func(topic string) bool // its topic is missing
	pending []*relay.Message
	got     []event
	refused int
	broken  bool
	kick    chan struct{}
	end     chan struct{}
	stopped sync.WaitGroup
}

func newPicky(t *testing.T, refuses func(topic, value string) bool) *picky {
	p := &picky{refuses: refuses, waits: func(string) bool { return false }, kick: make(chan struct{}, 1), end: make(chan struct{})}
	p.stopped.Go(p.run)
	t.Cleanup(func() { close(p.end); p.stopped.Wait() })
	return p
}

func (p *picky) Begin(context.Context, relay.Source) (relay.Checkpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.pending {
		m.Settle(errors.New("dropped by Begin"))
	}
	p.pending, p.broken = nil, false
	return relay.Checkpoint{}, nil
}

func (p *picky) Publish(m *relay.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		m.Settle(errors.New("sent behind a refused one"))
		return
	}
	p.pending = append(p.pending, m)
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *picky) run() {
	for {
		select {
		case <-p.kick:
		case <-p.end:
			return
		}
		<-time.After(2 * time.Millisecond) // linger, as producers do: it makes batches
		p.flush()
	}
}

func (p *picky) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pending) > 0 && !p.broken {
		if p.waits(p.pending[0].Topic) {
			return
		}
		batch := p.pending[:min(len(p.pending), 700)]
		p.broken = slices.ContainsFunc(batch, func(m *relay.Message) bool { return p.refuses(m.Topic, string(m.Value)) })
		p.pending = p.pending[len(batch):]
		for _, m := range batch {
			if p.broken {
				p.refused++
				m.Settle(fmt.Errorf("%w: the batch of row %s is refused", relay.ErrPoison, m.ID))
				continue
			}
			p.take(m)
		}
	}
	if p.broken {
		for _, m := range p.pending {
			m.Settle(errors.New("sent behind a refused one"))
		}
		p.pending = nil
	}
}

func (p *picky) take(m *relay.Message) {
	var h []string
	for k, v := range m.Headers() {
		h = append(h, k+"="+string(v))
	}
	p.got = append(p.got, event{m.Topic, string(m.Key), string(m.Value), strings.Join(h, " ")})
	m.Settle(nil)
}

func (p *picky) Close() error { return nil }

func (p *picky) refuse(f func(topic, value string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = f
}

func (p *picky) missing(f func(topic string) bool) {
	p.mu.Lock()
	p.waits = f
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// of are the values of a topic, in order of arrival.
func (p *picky) of(topic string) (values []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.got {
		if e.topic == topic {
			values = append(values, e.value)
		}
	}
	return values
}

func (p *picky) await(t *testing.T, topic string, want ...string) {
	t.Helper()
	await(t, func() error {
		if got := p.of(topic); !slices.Equal(got, want) {
			return fmt.Errorf("topic %s has %.200v, want %.200v", topic, got, want)
		}
		return nil
	})
}

const deadTopic = "outrider.test.dead-letter"

func bad(values ...string) func(string, string) bool {
	return func(topic, value string) bool { return topic == "t" && slices.Contains(values, value) }
}

// deadRows are the rows of outbox.dead as "value state", in order of their positions.
func (w *world) deadRows() string {
	w.t.Helper()
	return w.text(`SELECT string_agg(coalesce(convert_from(value, 'UTF8'), 'NULL') || ' ' || state, ', ' ORDER BY source, position) FROM outbox.dead`)
}

func (w *world) awaitDead(want string) {
	w.t.Helper()
	await(w.t, func() error {
		if got := w.deadRows(); got != want {
			return fmt.Errorf("outbox.dead holds %q, want %q", got, want)
		}
		return nil
	})
}

func poisonConfig(w *world, policy string) relay.Config {
	cfg := w.config()
	cfg.Poison = policy
	return cfg
}

// Of ten thousand rows in one transaction, two are refused; the sink names none
// of them. They are found in few sessions, and everything else keeps its order.
func TestPoisonAmongTenThousand(t *testing.T) {
	w := newWorld(t, 18)
	p := newPicky(t, bad("2718", "8281"))
	r := w.startWith(poisonConfig(w, relay.PoisonDeadLetter), p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.exec(`INSERT INTO outbox.events (topic, key, payload) SELECT 't', 'k', to_json(n) FROM generate_series(1, 10000) n`)
	var want []string
	for n := 1; n <= 10000; n++ {
		if n != 2718 && n != 8281 {
			want = append(want, fmt.Sprint(n))
		}
	}
	p.await(t, "t", want...)
	p.await(t, deadTopic, "2718", "8281")
	w.awaitDead("2718 dead-lettered, 8281 dead-lettered")
	if s := r.Status(); s.Role != relay.RoleLeader {
		t.Errorf("role %s, reason %s", s.Role, s.Reason)
	}
	n := r.Status().Sessions
	t.Logf("%d sessions, %d rows refused along", n, p.refused)
	if n > 40 {
		t.Errorf("it took %d sessions", n)
	}
}

// What a person sees, and each of the three ways out.
func TestPoisonHalts(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(w *world, p *picky)
		dead   string
		t, d   []string
	}{
		"mended": {func(_ *world, p *picky) { p.refuse(bad()) }, "", []string{"1", "2", "3"}, nil},
		"divert": {func(w *world, _ *picky) { w.exec(`UPDATE outbox.dead SET state = 'divert'`) }, "2 dead-lettered", []string{"1", "3"}, []string{"2"}},
		"skip":   {func(w *world, _ *picky) { w.exec(`UPDATE outbox.dead SET state = 'skip'`) }, "2 skipped", []string{"1", "3"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 18)
			p := newPicky(t, bad("2"))
			cfg := poisonConfig(w, relay.PoisonHalt)
			r := w.startWith(cfg, p, nil)
			r.awaitRole(relay.RoleLeader, "")
			w.write(1)
			w.exec(`INSERT INTO outbox.events (topic, key, payload, type, headers) VALUES ('t', 'k', '2', 'T', '{"a": "x", "n": 1, "z": null}')`)
			w.write(3)
			s := r.awaitRole(relay.RoleHalted, "poison")
			id := w.text(`SELECT id FROM outbox.events WHERE payload::text = '2'`)
			position := w.text(`SELECT position FROM outbox.dead`)
			for _, part := range []string{id, position, "is refused"} {
				if !strings.Contains(s.Error, part) {
					t.Errorf("error %q does not tell %q", s.Error, part)
				}
			}
			for _, part := range []string{"mend what refuses it", "outrider deadletter divert " + id, "outrider deadletter skip " + id, deadTopic} {
				if !strings.Contains(s.Hint, part) {
					t.Errorf("hint %q does not tell %q", s.Hint, part)
				}
			}
			if got, want := w.text(`SELECT concat_ws('|', state, slot, topic, key, type, convert_from(value, 'UTF8'), headers, reason <> '', committed_at > now() - interval '1 min') FROM outbox.dead`),
				`halted|outrider_test|t|k|T|2|{"a":"x","n":"1","z":null}|t|t`; got != want {
				t.Errorf("outbox.dead holds %s, want %s", got, want)
			}
			r.stop() // the next process knows it from the table
			r = w.startWith(cfg, p, nil)
			r.awaitRole(relay.RoleHalted, "poison")
			if got := w.text(`SELECT count(*) FROM outbox.dead`); got != "1" {
				t.Errorf("%s rows in outbox.dead", got)
			}
			p.await(t, "t", "1")
			tc.answer(w, p)
			p.await(t, "t", tc.t...)
			p.await(t, deadTopic, tc.d...)
			w.awaitDead(tc.dead)
			r.awaitRole(relay.RoleLeader, "")
			w.write(4)
			p.await(t, "t", append(tc.t, "4")...)
		})
	}
}

func TestPoisonSkips(t *testing.T) {
	w := newWorld(t, 15)
	p := newPicky(t, bad("2", "5"))
	r := w.startWith(poisonConfig(w, relay.PoisonSkip), p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1, 2, 3, 4, 5, 6)
	p.await(t, "t", "1", "3", "4", "6")
	w.awaitDead("2 skipped, 5 skipped")
	await(t, func() error { // what was left out is confirmed like the rest
		if got := w.text(`SELECT (confirmed_flush_lsn > (SELECT max((left(position, 8) || '/' || substr(position, 9, 8))::pg_lsn) FROM outbox.dead))::text FROM pg_replication_slots`); got != "true" {
			return errors.New("the slot stands before the rows that were left out")
		}
		return nil
	})
}

// The letter itself is refused: then a stub tells of it; and if that is refused,
// the relay waits again, and can be told to leave the row out.
func TestDeadLetterIsRefused(t *testing.T) {
	w := newWorld(t, 18)
	p := newPicky(t, func(topic, value string) bool { return value == "2" || topic == deadTopic && value == "3" })
	r := w.startWith(poisonConfig(w, relay.PoisonDeadLetter), p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1, 2, 3)
	p.await(t, "t", "1", "3")
	p.await(t, deadTopic, "")
	w.awaitDead("2 dead-lettered")
	p.mu.Lock()
	headers := p.got[slices.IndexFunc(p.got, func(e event) bool { return e.topic == deadTopic })].headers
	p.refuses = func(topic, value string) bool { return value == "5" || topic == deadTopic }
	p.mu.Unlock()
	for _, part := range []string{
		"id=" + w.text(`SELECT id FROM outbox.dead`), "outrider-position=" + w.text(`SELECT position FROM outbox.dead`), "outrider-dead-topic=t",
		"outrider-dead-reason=", "outrider-dead-size=1", "outrider-dead-sha256=d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35",
	} {
		if !strings.Contains(headers, part) {
			t.Errorf("headers of the stub: %s; want %s", headers, part)
		}
	}
	w.write(4, 5, 6)
	s := r.awaitRole(relay.RoleHalted, "poison")
	if !strings.Contains(s.Error, "its dead letter was refused") || !strings.Contains(s.Hint, "deadletter skip") || strings.Contains(s.Hint, "deadletter divert") {
		t.Errorf("error %q, hint %q", s.Error, s.Hint)
	}
	w.awaitDead("2 dead-lettered, 5 halted")
	w.exec(`UPDATE outbox.dead SET state = 'skip' WHERE state = 'halted'`)
	p.await(t, "t", "1", "3", "4", "6")
	w.awaitDead("2 dead-lettered, 5 skipped")
}

// Rows that cannot be laid out, as a foreign table may hold, before the slot and in the stream.
func TestUnreadableRows(t *testing.T) {
	for _, policy := range []string{relay.PoisonHalt, relay.PoisonDeadLetter} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 18)
			for check := range strings.FieldsSeq(w.text(`SELECT string_agg(conname, ' ') FROM pg_constraint WHERE conrelid = 'outbox.events'::regclass AND contype = 'c'`)) {
				w.exec(`ALTER TABLE outbox.events DROP CONSTRAINT ` + check)
			}
			write := func(n int) {
				w.write(n)
				w.exec(`INSERT INTO outbox.events (topic, key, payload, headers) VALUES ('t', 'k', $1, '["a"]')`, fmt.Sprint(n+1))
				w.exec(`INSERT INTO outbox.events (topic, key, payload, payload_bytes) VALUES ('t', 'k', $1, 'x')`, fmt.Sprint(n+2))
				w.write(n + 3)
			}
			write(1)
			p := newPicky(t, bad())
			r := w.startWith(poisonConfig(w, policy), p, nil)
			if policy == relay.PoisonHalt {
				for i := range 4 {
					if i == 2 {
						write(5)
					}
					r.awaitRole(relay.RoleHalted, "poison")
					await(t, func() error {
						if n := w.text(`SELECT count(*) FROM outbox.dead WHERE state = 'halted'`); n != "1" {
							return fmt.Errorf("%s rows halted", n)
						}
						return nil
					})
					w.exec(`UPDATE outbox.dead SET state = 'divert' WHERE state = 'halted'`)
				}
			} else {
				p.await(t, "t", "1", "4")
				write(5)
			}
			p.await(t, "t", "1", "4", "5", "8")
			p.await(t, deadTopic, "2", "3", "6", "7")
			w.awaitDead("2 dead-lettered, 3 dead-lettered, 6 dead-lettered, 7 dead-lettered")
			if got := w.text(`SELECT string_agg(coalesce(headers, '-') || (reason LIKE '%both payload%'), ' ' ORDER BY source, position) FROM outbox.dead`); got != `["a"]false -true ["a"]false -true` {
				t.Errorf("headers and reasons: %s", got)
			}
		})
	}
}

// Without the table nothing may be set aside: whatever the policy, the relay
// waits, and says what is missing.
func TestPoisonWithoutTheTable(t *testing.T) {
	w := newWorld(t, 18)
	w.exec(`ALTER TABLE outbox.dead RENAME TO hidden`)
	p := newPicky(t, bad("2"))
	r := w.startWith(poisonConfig(w, relay.PoisonSkip), p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1, 2, 3)
	if s := r.awaitRole(relay.RoleHalted, "poison"); !strings.Contains(s.Hint, "outrider migrate up --roles relay=") {
		t.Errorf("hint %q", s.Hint)
	}
	w.exec(`ALTER TABLE outbox.hidden RENAME TO dead`)
	p.await(t, "t", "1", "3")
	w.awaitDead("2 skipped")
}

// A crash after the verdict was written and before it was carried out: the
// letter is published when the row comes again.
func TestDeadLetterAfterACrash(t *testing.T) {
	w := newWorld(t, 18)
	p := newPicky(t, bad("2"))
	p.missing(func(topic string) bool { return topic == deadTopic })
	cfg := poisonConfig(w, relay.PoisonDeadLetter)
	cfg.ShutdownTimeout = 100 * time.Millisecond
	r := w.startWith(cfg, p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1, 2, 3)
	w.awaitDead("2 dead-lettered")
	p.await(t, "t", "1") // 3 waits behind the letter, and the letter for its topic
	r.stop()
	if got := p.of("t"); len(got) != 1 {
		t.Errorf("arrived although the dead letter waits: %v", got)
	}
	r = w.startWith(cfg, p, nil)
	r.awaitRole(relay.RoleLeader, "")
	p.missing(func(string) bool { return false })
	p.await(t, deadTopic, "2")
	p.await(t, "t", "1", "3")
	w.awaitDead("2 dead-lettered")
}

// An answer holds for the event, also when it comes again at another position,
// after the slot was lost and the row is read from the table.
func TestAnswerUnderAnotherSource(t *testing.T) {
	w := newWorld(t, 18)
	p := newPicky(t, bad("2"))
	cfg := poisonConfig(w, relay.PoisonHalt)
	r := w.startWith(cfg, p, nil)
	r.awaitRole(relay.RoleLeader, "")
	w.write(1, 2, 3)
	r.awaitRole(relay.RoleHalted, "poison")
	r.stop()
	w.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
	r = w.startWith(cfg, p, nil)
	await(t, func() error { // found again, in its new place and nowhere else
		if got := w.text(`SELECT count(*) || ' ' || min(source) FROM outbox.dead`); !strings.HasPrefix(got, "1 ") || !strings.HasSuffix(got, ".2") {
			return fmt.Errorf("rows and source: %s", got)
		}
		return nil
	})
	r.stop()
	w.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
	w.exec(`UPDATE outbox.dead SET state = 'skip'`)
	r = w.startWith(cfg, p, nil)
	await(t, func() error {
		if got := p.of("t"); len(got) == 0 || got[len(got)-1] != "3" || slices.Contains(got, "2") {
			return fmt.Errorf("arrived: %v", got)
		}
		return nil
	})
	w.awaitDead("2 skipped")
	r.awaitRole(relay.RoleLeader, "")
}
