package sinktest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-cdc/outrider/relay"
)

// keepsOrder publishes to a healthy downstream.
func keepsOrder(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.begin(ctx); err != nil {
		return err
	}
	return j.healthy(ctx, 3000)
}

// healthy publishes n rows, all of which must land, in order and once.
func (j *journal) healthy(ctx context.Context, n int) error {
	if err := within(ctx, "Publish", func() error { j.publishRows(n, 50); return nil }); err != nil {
		return err
	}
	return errors.Join(j.wait(ctx), j.allNil(), j.landed(ctx, once))
}

// beginsAgain goes through leaderships in which nothing happens.
func beginsAgain(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	for range 3 {
		if err := j.begin(ctx); err != nil {
			return err
		}
		if err := j.healthy(ctx, 300); err != nil {
			return err
		}
	}
	return nil
}

// stallPatience is how long Publish and Close may take without an answer from downstream.
const stallPatience = 10 * time.Second

// neverBlocks publishes 8 MB to a downstream that does not answer.
func neverBlocks(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	resume := rig.Stall()
	defer resume()
	short, cancel := context.WithTimeout(ctx, stallPatience)
	defer cancel()
	if err := within(short, "Publish", func() error { j.publishRows(8000, 1000); return nil }); err != nil {
		return err
	}
	if j.unsettled() == 0 {
		return errors.New("void: everything was settled although the downstream was stalled")
	}
	resume()
	return errors.Join(j.wait(ctx), j.allNil(), j.landed(ctx, repeatable))
}

// warm begins and sends a first row to each topic.
func (j *journal) warm(ctx context.Context) error {
	if err := j.begin(ctx); err != nil {
		return err
	}
	for _, topic := range j.rig.Topics {
		if err := within(ctx, "Publish", func() error { j.publishRow(topic, "warm", 1); return nil }); err != nil {
			return err
		}
	}
	return errors.Join(j.wait(ctx), j.allNil())
}

// settlesBeforeBegin ends a leadership while messages are out.
func settlesBeforeBegin(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	resume := rig.Stall()
	defer resume()
	if err := within(ctx, "Publish", func() error { j.publishRows(400, 50); return nil }); err != nil {
		return err
	}
	// Begin may wait for the downstream, or give up on what is out: but it
	// may not return before each message has heard.
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err := rig.Sink.Begin(short, relay.Source{SystemID: "1", Timeline: 1, Slot: "test", Generation: 1})
	cancel()
	if open := j.unsettled(); err == nil && open > 0 {
		return fmt.Errorf("begin returned with %d messages of the earlier leadership unsettled", open)
	}
	resume()
	if err := j.begin(ctx); err != nil {
		return err
	}
	if open := j.unsettled(); open > 0 {
		return fmt.Errorf("begin returned with %d messages of the earlier leadership unsettled", open)
	}
	if err := errors.Join(j.prefix(), j.landed(ctx, repeatable)); err != nil {
		return err
	}
	return j.replay(ctx)
}

// replay publishes again what settled with an error, as a relay does.
func (j *journal) replay(ctx context.Context) error {
	failed := j.failed(0)
	from := len(j.calls)
	err := within(ctx, "Publish", func() error {
		for _, c := range failed {
			j.publish(&call{stream: c.stream, number: c.number, value: c.value})
		}
		return nil
	})
	if err := errors.Join(err, j.wait(ctx)); err != nil {
		return err
	}
	if again := j.failed(from); len(again) > 0 {
		return fmt.Errorf("%d messages of the replay settled with an error, the first with: %w", len(again), again[0].err)
	}
	return errors.Join(j.settledLanded(ctx), j.finally(ctx))
}

// settlesInClose closes the sink while messages are out.
func settlesInClose(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	resume := rig.Stall()
	defer resume()
	if err := within(ctx, "Publish", func() error { j.publishRows(400, 50); return nil }); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, stallPatience)
	defer cancel()
	if err := within(short, "Close", rig.Sink.Close); err != nil {
		return err
	}
	if open := j.unsettled(); open > 0 {
		return fmt.Errorf("close returned with %d messages unsettled", open)
	}
	if len(j.failed(0)) == 0 {
		return errors.New("void: everything settled nil although the downstream was stalled")
	}
	resume()
	return errors.Join(j.prefix(), j.landed(ctx, repeatable))
}

func settlesAfterClose(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	if err := within(ctx, "Close", rig.Sink.Close); err != nil {
		return err
	}
	from := len(j.calls)
	if err := within(ctx, "Publish", func() error { j.publishRows(10, 1); return nil }); err != nil {
		return err
	}
	if err := j.wait(ctx); err != nil {
		return err
	}
	if failed := j.failed(from); len(failed) != 10 {
		return fmt.Errorf("%d of 10 messages settled nil after close", 10-len(failed))
	}
	return nil
}

// settlesConcurrently closes the sink while it is published to.
func settlesConcurrently(ctx context.Context, rig *Rig) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	published := make(chan error, 1)
	half := make(chan struct{})
	go func() {
		published <- within(ctx, "Publish", func() error {
			j.publishRows(500, 50)
			close(half)
			j.publishRows(1500, 50)
			return nil
		})
	}()
	select {
	case <-half:
	case <-ctx.Done():
	}
	err := within(ctx, "Close", rig.Sink.Close)
	if err := errors.Join(err, <-published, j.wait(ctx)); err != nil {
		return err
	}
	return errors.Join(j.prefix(), j.landed(ctx, once))
}

// settlesPrefix lets the downstream refuse one unit in the middle of traffic.
func settlesPrefix(ctx context.Context, rig *Rig, n int) error {
	j := newJournal(rig)
	if err := j.warm(ctx); err != nil {
		return err
	}
	rig.Refuse(n)
	// In waves, so that units are not all under way before the first answer.
	for wave := 0; wave < 100 && len(j.failed(0)) == 0; wave++ {
		if err := within(ctx, "Publish", func() error { j.publishRows(200, 200); return nil }); err != nil {
			return err
		}
		if wave%2 == 0 {
			if err := j.wait(ctx); err != nil {
				return err
			}
		}
	}
	if err := within(ctx, "Publish", func() error { j.publishRows(200, 50); return nil }); err != nil {
		return err
	}
	if err := j.wait(ctx); err != nil {
		return err
	}
	if len(j.failed(0)) == 0 {
		return errors.New("a unit was refused, and no message settled with an error")
	}
	// A key may have landed with a gap, for what settles with an error after it is sent again in order.
	if err := errors.Join(j.prefix(), j.settledLanded(ctx)); err != nil {
		return err
	}
	if err := j.begin(ctx); err != nil {
		return err
	}
	return j.replay(ctx)
}
