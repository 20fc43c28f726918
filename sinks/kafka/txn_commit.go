package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

var (
	errOverdue    = errors.New("the brokers did not acknowledge a transaction in time")
	errUnresolved = errors.New("whether a transaction was committed is not known")
	errReplaced   = errors.New("the client was replaced after the answer to a commit was lost")
)

// abortPatience is how long an abort may wait for the brokers. What it does not
// reach, the next leadership aborts, or the brokers do when its time is over.
const abortPatience = 2 * time.Second

// end commits tx, or aborts it if anything failed, cause being something that
// did. It settles all messages of tx; an error ends the leadership.
func (x *transactor) end(tx *transaction, cause error) error {
	if len(tx.messages) == 0 {
		return cause // nothing of it has reached the brokers
	}
	var next stored
	if cause == nil && !x.broken.Load() {
		next = x.covered.with(tx.messages, x.owed)
		cause = x.storeCheckpoint(next)
	}
	if cause == nil {
		cause = x.drain(tx)
	}
	x.producer.sink.group.Store(int32(tx.limit.after(tx, time.Since(tx.begun), x.timeout)))
	if cause != nil || x.broken.Load() {
		return x.abort(tx, cause)
	}
	ctx, cancel := context.WithTimeout(x.ctx, x.timeout)
	err := x.producer.client.EndTransaction(ctx, kgo.TryCommit)
	cancel()
	switch {
	case err == nil:
		x.committed = time.Now()
		x.covered.last = next.Checkpoint
		x.settleAll(tx, nil)
		return nil
	case definitive(err):
		return x.abort(tx, fmt.Errorf("commit a transaction: %w", err))
	}
	return x.resolve(tx, next, err)
}

// definitive reports whether err is a broker's word that it did not commit.
// Everything else may have happened before or after the commit.
func definitive(err error) bool {
	code, ok := errors.AsType[*kerr.Error](err)
	return ok && !code.Retriable && code != kerr.UnknownServerError
}

// storeCheckpoint sends next as a part of the transaction.
func (x *transactor) storeCheckpoint(next stored) error {
	value, err := next.encode()
	if err != nil {
		return fmt.Errorf("encode a checkpoint: %w", err)
	}
	source := x.producer.source.Load()
	r := &kgo.Record{Topic: checkpointTopic(source), Key: []byte(source.Slot), Value: value}
	x.out.Add(1)
	x.producer.client.TryProduce(context.Background(), r, func(_ *kgo.Record, err error) { x.answered(nil, err) })
	return nil
}

// drain waits until all of tx is acknowledged or something failed.
func (x *transactor) drain(tx *transaction) error {
	// The brokers give tx up at its timeout, and then nothing of this client
	// counts any more; a quarter of it is left to end it ourselves.
	timer := time.NewTimer(time.Until(tx.begun.Add(x.timeout * 3 / 4)))
	defer timer.Stop()
	for x.out.Load() > 0 && !x.broken.Load() {
		select {
		case <-x.wake:
		case <-timer.C:
			return errOverdue
		case <-x.ctx.Done():
			return errClosed
		}
	}
	x.notify() // what woke this may have been input
	return nil
}

// abort ends tx without a trace for readers of committed records. cause may be
// nil: then the promises tell. Nothing may be settled before franz-go is done
// with the messages' bytes.
func (x *transactor) abort(tx *transaction, cause error) error {
	p, age := x.producer, time.Since(tx.begun)
	ctx, cancel := context.WithTimeout(context.Background(), abortPatience)
	defer cancel()
	if err := p.client.AbortBufferedRecords(ctx); err == nil {
		if err := p.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
			p.sink.opts.Logger.Warn("a transaction was not aborted, the next leadership does it", "error", err)
		}
	}
	if x.out.Load() > 0 {
		p.shut()
		for x.out.Load() > 0 {
			<-x.wake
		}
	}
	x.mu.Lock()
	failures := x.failures
	x.mu.Unlock()
	named, rest := make(map[*relay.Message]error), cause
	for _, f := range failures {
		if errors.Is(f.err, kgo.ErrAborting) || errors.Is(f.err, kgo.ErrClientClosed) {
			continue // a consequence of the abort
		}
		err := x.verdict(f, age)
		if f.message != nil {
			named[f.message] = err
		}
		if rest == nil {
			rest = follows(err)
		}
	}
	if rest == nil {
		rest = errClosed
	}
	rest = x.class(rest, age)
	// First those that the brokers named: the first error is the one that is told.
	for _, m := range tx.messages {
		if err := named[m]; err != nil {
			p.sink.settle(m, err)
		}
	}
	for _, m := range tx.messages {
		if named[m] == nil {
			p.sink.settle(m, rest)
		}
	}
	return rest
}

// verdict is what a message settles with after f.
func (x *transactor) verdict(f failure, age time.Duration) error {
	if err := x.class(f.err, age); isFenced(err) {
		return err
	}
	if f.message != nil {
		return x.producer.sink.explain.settled(f.message, f.err)
	}
	name := checkpointTopic(x.producer.source.Load())
	err := x.producer.sink.explain.classify(name, f.err)
	if isPoison(err) { // no row can do anything about it
		err = checkpointHalt(fmt.Errorf("topic %q refuses a checkpoint: %w", name, f.err), relay.Hint{
			Say: "compare the topic's settings with those of other topics: max.message.bytes and what the brokers check",
		})
	}
	return fmt.Errorf("store a checkpoint: %w", err)
}

// class sorts err, which ended a transaction of that age. The brokers take a
// producer's epoch away when another one begins, and when a transaction
// outlives its timeout. So in a younger one it is the former.
func (x *transactor) class(err error, age time.Duration) error {
	if isFenced(err) || age >= x.timeout {
		return err
	}
	if code, ok := errors.AsType[*kerr.Error](err); ok && (code == kerr.ProducerFenced || code == kerr.InvalidProducerEpoch) {
		return fmt.Errorf("another relay writes as %q: %w: %w", transactionalID(x.producer.source.Load()), relay.ErrFenced, err)
	}
	return x.producer.sink.explain.classify("", err)
}

func isFenced(err error) bool { return errors.Is(err, relay.ErrFenced) }

func (x *transactor) settleAll(tx *transaction, err error) {
	for _, m := range tx.messages {
		x.producer.sink.settle(m, err)
	}
}
