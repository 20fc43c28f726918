package kafka

import (
	"context"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// transaction is one group of messages.
type transaction struct {
	limit    groupLimit
	begun    time.Time // zero: not yet
	messages []*relay.Message
	bytes    int
	// refused is the first message that is certain to be refused, and with what
	// it settles. Nothing behind it may be committed.
	refused entry
}

func (tx *transaction) reset(limit groupLimit) {
	clear(tx.messages)
	*tx = transaction{limit: limit, messages: tx.messages[:0]}
}

func (tx *transaction) full() bool {
	return len(tx.messages) >= groupRecords>>tx.limit || tx.bytes >= groupBytes>>tx.limit
}

// groupLimit is how often the size of transactions is halved. A slow network
// may not carry a whole one before its time is over; without a smaller one the
// same messages would be sent and aborted for ever.
type groupLimit int32

// smallestGroup is 78 records or 64 KiB.
const smallestGroup groupLimit = 8

// after is the limit after tx, which took that long out of timeout.
func (l groupLimit) after(tx *transaction, took, timeout time.Duration) groupLimit {
	switch {
	case took > timeout/2:
		return min(l+1, smallestGroup)
	case tx.full() && took < timeout/8:
		return max(l-1, 0)
	}
	return l
}

// transact writes one transaction, if there is something to write now. An error
// ends the leadership; it is what all the rest settles with.
func (x *transactor) transact() (sent bool, err error) {
	tx := &x.tx
	tx.reset(groupLimit(x.producer.sink.group.Load()))
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
	age := time.NewTimer(groupAge)
	defer age.Stop()
	for {
		if err := x.admit(tx); err != nil {
			return err
		}
		if x.out.Load() == 0 || tx.full() || tx.refused.message != nil || x.broken.Load() {
			return nil
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
	r, size, refused := x.prepare(e)
	if refused.message != nil {
		tx.refused = refused
		return nil
	}
	if tx.begun.IsZero() {
		if err := x.begin(tx); err != nil {
			x.producer.sink.release(r)
			return err
		}
	}
	e.topic.sent.Add(1)
	tx.messages = append(tx.messages, e.message)
	tx.bytes += size
	x.out.Add(1)
	x.producer.client.TryProduce(context.Background(), &r.kafka, x.producer.promise)
	return nil
}

// prepare makes the record of e, of at most size bytes, or says with what e settles instead.
func (x *transactor) prepare(e entry) (r *record, size int, refused entry) {
	p, t, m := x.producer, e.topic, e.message
	refuse := func(err error) (*record, int, entry) { return nil, 0, entry{m, t, err} }
	if e.err != nil {
		return refuse(e.err)
	}
	if err := t.refuse.Load(); err != nil {
		return refuse(p.sink.explain.settled(m, *err))
	}
	l := t.limits.Load()
	if l == nil {
		return refuse(errClosed)
	}
	r = p.sink.newRecord()
	r.fill(m, t, l.timestamp(m.CommittedAt, time.Now()))
	size, err := p.preflight(t, l, r)
	if err != nil {
		p.sink.release(r)
		return refuse(err)
	}
	return r, size, entry{}
}
