package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// resolve finds out what became of tx after its commit ended with cause, which
// tells nothing. A new client, once it has its epoch, has put an end to it
// either way, and the newest checkpoint is then either that of tx or the one
// before. Nothing is guessed: without an answer all messages settle with an
// error, and the next leadership reads the checkpoint.
//
// The lease keeps this from fencing another relay: without it no byte leaves.
func (x *transactor) resolve(tx *transaction, want stored, cause error) error {
	log := x.producer.sink.opts.Logger
	committed := false
	err := x.producer.insist(x.ctx, "find out whether a transaction was committed", func(ctx context.Context) (err error) {
		committed, err = x.ask(ctx, want)
		return err
	})
	switch {
	case err != nil:
		log.Warn("whether a transaction was committed is left to the next leadership", "error", errors.Join(cause, err))
		x.settleAll(tx, fmt.Errorf("%w: %w", errUnresolved, cause))
		return fmt.Errorf("%w: %w", errUnresolved, err)
	case !committed:
		log.Warn("a transaction was not committed", "error", cause)
		x.settleAll(tx, fmt.Errorf("commit a transaction: %w", cause))
	default:
		log.Warn("a transaction was committed although the answer was lost", "error", cause)
		x.settleAll(tx, nil)
	}
	return errReplaced
}

// ask is one attempt, with a client of its own.
func (x *transactor) ask(ctx context.Context, want stored) (committed bool, err error) {
	p := x.producer
	source := p.source.Load()
	client, err := newClient(append(p.sink.connectOptions(p), append(p.sink.transactional(source), kgo.AlwaysRetryEOF())...))
	if err != nil {
		return false, err
	}
	defer client.Close()
	if err := fence(ctx, client); err != nil {
		return false, err
	}
	newest, err := newestCheckpoint(ctx, client, source, unbounded)
	if err != nil {
		return false, err
	}
	return newest.transaction == want.transaction, nil
}
