package kafka

import (
	"context"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// transaction is one group of messages.
type transaction struct {
	begun    time.Time // zero: not yet
	messages []*relay.Message
	bytes    int
	// refused is the first message that is certain to be refused, and with what
	// it settles. Nothing behind it may be committed.
	refused entry
}

func (tx *transaction) reset() {
	clear(tx.messages)
	*tx = transaction{messages: tx.messages[:0]}
}

func (tx *transaction) full() bool {
	return len(tx.messages) >= groupRecords || tx.bytes >= groupBytes
}

// transact writes one transaction, if there is something to write now. An error
// ends the leadership; it is what all the rest settles with.
func (x *transactor) transact() (sent bool, err error) {
	tx := &x.tx
	tx.reset()
	if err = x.fill(tx); err == nil || len(tx.messages) > 0 {
		err = x.end(tx, err)
	}
	switch bad := tx.refused; {
	case bad.message == nil:
	case err != nil:
		x.producer.sink.settle(bad.message, err)
	default:
		x.producer.sink.settle(bad.message, bad.err)
		err = follows(bad.err)
	}
	return len(tx.messages) > 0, err
}

// follows is what messages settle with that were not refused themselves, after one that was with err.
func follows(err error) error {
	if isHalt(err) || isFenced(err) {
		return err
	}
	return &followsError{err}
}

// fill gives franz-go what may go into tx, until its time or its size is
// reached, or everything is acknowledged: as long as answers are due, more costs
// no time.
func (x *transactor) fill(tx *transaction) error {
	var age *time.Timer // nil until tx has begun
	for {
		if err := x.admit(tx); err != nil {
			return err
		}
		if x.out.Load() == 0 || tx.full() || tx.refused.message != nil || x.broken.Load() {
			return nil
		}
		if age == nil {
			age = time.NewTimer(time.Until(tx.begun.Add(groupAge)))
			defer func() { age.Stop() }()
		}
		select {
		case <-x.wake:
		case <-age.C:
			return nil
		case <-x.ctx.Done():
			return errClosed
		}
	}
}

// admit gives franz-go what may go into tx now.
func (x *transactor) admit(tx *transaction) error {
	if err := x.admitOwed(tx); err != nil {
		return err
	}
	skips := x.producer.source.Load().ResumesOwed
	for x.more() && !tx.full() && tx.refused.message == nil {
		e := x.queue[x.head]
		if t := e.topic; t != nil && (t.owed > 0 || !t.direct.Load()) {
			// Its topic is not known. Without a way to tell the next leadership
			// of it nothing may pass: the checkpoint would cover it.
			if !skips || len(x.owed) == maxOwed {
				return nil
			}
			t.owed++
			x.owed = append(x.owed, e)
		} else if err := x.enter(tx, e); err != nil {
			return err
		}
		x.queue[x.head] = entry{}
		x.head++
	}
	return nil
}

// admitOwed lets those go whose topics are known by now.
func (x *transactor) admitOwed(tx *transaction) error {
	kept := x.owed[:0]
	for i, e := range x.owed {
		if tx.full() || tx.refused.message != nil {
			kept = append(kept, x.owed[i:]...)
			break
		}
		if !e.topic.direct.Load() {
			kept = append(kept, e)
			continue
		}
		if err := x.enter(tx, e); err != nil {
			x.owed = append(kept, x.owed[i:]...)
			return err
		}
		e.topic.owed--
	}
	clear(x.owed[len(kept):])
	x.owed = kept
	return nil
}

// more reports whether the queue holds something, and fills it from the input.
func (x *transactor) more() bool {
	if x.head < len(x.queue) {
		return true
	}
	x.mu.Lock()
	x.queue, x.input = x.input, x.queue[:0]
	x.mu.Unlock()
	x.head = 0
	return len(x.queue) > 0
}

// enter makes e part of tx, which then has begun, or notes that it never can
// be. After an error e is in no transaction.
func (x *transactor) enter(tx *transaction, e entry) error {
	if tx.refused.err = x.refusal(e); tx.refused.err != nil {
		tx.refused.message = e.message
		return nil
	}
	if tx.begun.IsZero() {
		if err := x.begin(tx); err != nil {
			return err
		}
	}
	p, t, l := x.producer, e.topic, e.topic.limits.Load()
	r := p.sink.newRecord()
	r.fill(e.message, t, l.timestamp(e.message.CommittedAt, time.Now()))
	var size int
	if size, tx.refused.err = p.preflight(t, l, r); tx.refused.err != nil {
		p.sink.release(r)
		tx.refused.message = e.message
		return nil
	}
	t.sent.Add(1)
	tx.messages = append(tx.messages, e.message)
	tx.bytes += size
	x.out.Add(1)
	p.client.TryProduce(context.Background(), &r.kafka, p.promise)
	return nil
}

// refusal is why e goes into no transaction, whatever it looks like as a record.
func (x *transactor) refusal(e entry) error {
	if e.err != nil {
		return e.err
	}
	if err := e.topic.refuse.Load(); err != nil {
		return x.producer.sink.explain.settled(e.message, *err)
	}
	if e.topic.limits.Load() == nil {
		return errClosed
	}
	return nil
}
