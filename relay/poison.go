package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Values of Config.Poison.
const (
	PoisonHalt       = "halt"
	PoisonDeadLetter = "dead-letter"
	PoisonSkip       = "skip"
)

// Headers of a dead letter, behind the row's own.
const (
	HeaderDeadTopic   = "outrider-dead-topic"   // where the row was to go
	HeaderDeadReason  = "outrider-dead-reason"  // why it could not
	HeaderDeadHeaders = "outrider-dead-headers" // the column headers, where it cannot be read
	HeaderDeadSize    = "outrider-dead-size"    // of a value that is left out because the dead letter was refused with it, in bytes
	HeaderDeadSHA256  = "outrider-dead-sha256"  // of that value, in hex
)

// unfit says why a row cannot be laid out as a message. Its message holds what
// can be read.
type unfit struct {
	cause   error
	headers []byte // the column as it is, where that is what cannot be read
}

// with adds another reason.
func (u *unfit) with(cause error) *unfit {
	if u == nil {
		return &unfit{cause: cause}
	}
	return &unfit{cause: errors.Join(u.cause, cause), headers: u.headers}
}

// publish hands m to the sink, except where it is known or suspected that the
// sink refuses it. bad is nil, or why nobody could take m.
func (s *stream) publish(ctx context.Context, m *Message, bad *unfit) error {
	q := &s.relay.quarantine
	if bad == nil && q.idle() {
		s.hand(m)
		return nil
	}
	if q.over(m.Position) {
		if err := s.drained(ctx, m.Cursor-1); err != nil {
			return err
		}
		q.passed()
	}
	q.reach(m.Position)
	v, known := q.known(m)
	switch {
	case known:
		return s.carryOut(ctx, m, v, bad)
	case bad != nil:
		if err := s.drained(ctx, m.Cursor-1); err != nil {
			return err
		}
		return &refusal{message: m, bad: bad, cause: bad.cause}
	case q.suspected(m.Position):
		return s.try(ctx, m)
	}
	s.hand(m)
	return nil
}

// hand gives m to the sink.
func (s *stream) hand(m *Message) {
	s.flight.took(m)
	s.relay.sink.Publish(m)
}

// drained waits until the sink has taken everything, rows of the backlog up to
// that seq among it. A next session goes on from there, while the ledger counts
// whole chunks: else each look at a refused row would repeat those before it.
func (s *stream) drained(ctx context.Context, cursor int64) error {
	if err := s.awaitEmpty(ctx); err != nil {
		return err
	}
	if err := s.failure(); err != nil { // a sink that gave everything back is empty, too
		return err
	}
	if s.paying != nil {
		s.paying.debt.note(cursor, false)
	}
	return nil
}

// try publishes a suspect within a trial, and ends the trial with its last.
func (s *stream) try(ctx context.Context, m *Message) error {
	q := &s.relay.quarantine
	if q.size == 0 {
		if err := s.drained(ctx, m.Cursor-1); err != nil {
			return err
		}
		q.try()
	}
	s.hand(m)
	if m.Position != q.until {
		return nil
	}
	alone := q.size == 1
	if err := s.drained(ctx, m.Cursor); err != nil {
		if alone && errors.Is(err, ErrPoison) {
			return &refusal{message: m, cause: err}
		}
		return err
	}
	q.passed()
	return nil
}

// carryOut does with m what was decided about it.
func (s *stream) carryOut(ctx context.Context, m *Message, v verdict, bad *unfit) error {
	if err := s.drained(ctx, m.Cursor-1); err != nil {
		return err
	}
	q, r := &s.relay.quarantine, s.relay
	switch v.state {
	case deadHalted:
		if bad != nil {
			return &refusal{message: m, bad: bad, cause: bad.cause}
		}
		s.hand(m)
		err := s.drained(ctx, m.Cursor)
		if errors.Is(err, ErrPoison) {
			return &refusal{message: m, cause: err}
		}
		if err == nil {
			err = s.dead(ctx, func(ctx context.Context, d *dead) error { return d.remove(ctx, v) })
		}
		if err != nil {
			return err
		}
		r.log.Info("a row that was refused is published", "id", string(m.ID), "position", m.Position.String())
	case deadDivert, deadLettered:
		if err := s.deadLetter(ctx, m, v, bad); err != nil {
			return err
		}
	case deadSkip, deadSkipped:
		if v.state == deadSkip {
			if err := s.dead(ctx, func(ctx context.Context, d *dead) error { return d.become(ctx, v, deadSkipped) }); err != nil {
				return err
			}
		}
		m.skip()
		r.metrics.poisoned.WithLabelValues(deadSkipped).Inc()
		r.log.Error("a row was left out; outbox.dead holds it", "id", string(m.ID), "position", m.Position.String(), "topic", m.Topic)
	default:
		return fmt.Errorf("row at position %s has the unknown state %q in the table dead", m.Position, v.state)
	}
	q.forget(v)
	if !q.halted() {
		r.setRole(RoleLeader, "", nil)
	}
	return nil
}

// deadLetter publishes m to the topic of dead letters in place of its own. The
// state is written first: a crash in between publishes it when the row comes again.
func (s *stream) deadLetter(ctx context.Context, m *Message, v verdict, bad *unfit) error {
	q, r := &s.relay.quarantine, s.relay
	reason := ""
	err := s.dead(ctx, func(ctx context.Context, d *dead) (err error) {
		if v.state == deadDivert {
			if err := d.become(ctx, v, deadLettered); err != nil {
				return err
			}
			delete(q.stubs, m.Position)
		}
		reason, err = d.reason(ctx, v)
		return err
	})
	if err != nil {
		return err
	}
	letter := m.deadLetter(r.routes.named(r.cfg.DeadLetterTopic), reason, bad, q.stubs[m.Position])
	s.hand(letter)
	err = s.drained(ctx, m.Cursor)
	switch {
	case errors.Is(err, ErrPoison) && !q.stubs[m.Position]:
		q.note(m.Position) // in the next session without the value
		return &setAside{err}
	case errors.Is(err, ErrPoison): // even without it
		delete(q.stubs, m.Position)
		return &refusal{message: m, bad: bad, cause: fmt.Errorf("its dead letter was refused as well, even without its value: %w", err), letter: true}
	case err != nil:
		return err
	}
	r.metrics.poisoned.WithLabelValues(deadLettered).Inc()
	r.log.Error("a row went to the topic of dead letters", "id", string(m.ID), "position", m.Position.String(), "topic", m.Topic, "dead_letter_topic", r.cfg.DeadLetterTopic, "whole", !q.stubs[m.Position])
	delete(q.stubs, m.Position)
	return nil
}

// deadLetter is a copy of m for the topic of dead letters, under the same
// position, so that a checkpoint covers it as it would have covered m. As a stub
// it tells what the row was and holds nothing of it.
func (m *Message) deadLetter(to *topic, reason string, bad *unfit, stub bool) *Message {
	l := &Message{
		ID: m.ID, Topic: to.name, Key: m.Key, Value: m.Value, Type: m.Type, Position: m.Position, Cursor: m.Cursor,
		CommittedAt: m.CommittedAt, source: m.source, texts: m.texts, owner: m.owner, topic: to, bit: m.bit,
	}
	l.own = append(l.own, m.own...)
	if bad != nil && bad.headers != nil {
		l.own = append(l.own, Header{HeaderDeadHeaders, bad.headers})
	}
	if stub {
		sum := sha256.Sum256(m.Value)
		l.Key, l.Value, l.Type = nil, nil, nil
		l.own = []Header{
			{HeaderDeadSize, strconv.AppendInt(nil, int64(len(m.Value)), 10)},
			{HeaderDeadSHA256, []byte(hex.EncodeToString(sum[:]))},
		}
	}
	l.own = append(l.own, Header{HeaderDeadTopic, []byte(m.Topic)}, Header{HeaderDeadReason, []byte(reason)})
	l.charge = int64(l.Size()) + messageOverhead
	return l
}

// skip settles m without publishing it.
func (m *Message) skip() {
	if c, ok := m.owner.(*chunk); ok {
		c.bits.Or(1 << m.bit)
	}
}

// headersText is the row's own headers as JSON, or the column as it was.
func (m *Message) headersText(bad *unfit) *string {
	if bad != nil && bad.headers != nil {
		return new(storable(bad.headers))
	}
	if len(m.own) == 0 {
		return nil
	}
	headers := make(map[string]*string, len(m.own))
	for _, h := range m.own {
		if headers[h.Key] = nil; h.Value != nil {
			headers[h.Key] = new(storable(h.Value))
		}
	}
	text, err := json.Marshal(headers)
	if err != nil { // a map of strings
		return nil
	}
	return new(string(text))
}

// storable is b as Postgres can store text: bytes that are none become hex.
func storable(b []byte) string {
	if utf8.Valid(b) && !strings.ContainsRune(string(b), 0) {
		return string(b)
	}
	return `\x` + hex.EncodeToString(b)
}

func storableOrNil(b []byte) *string {
	if b == nil {
		return nil
	}
	return new(storable(b))
}
