package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// chaosTime is how long customers order while everything is killed.
const chaosTime = 10 * time.Second

// chaos kills shop and Outrider at any moment, and takes the broker away now and
// then, while customers order. The first two ways may be lucky; the outbox may not need to be.
func chaos(ctx context.Context, out io.Writer) (err error) {
	s, err := open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ways := []string{databaseFirst, brokerFirst, viaOutbox}
	on, cancel := context.WithTimeout(ctx, chaosTime)
	defer cancel()
	var g errgroup.Group
	for _, way := range ways {
		for range 3 {
			g.Go(func() error {
				for on.Err() == nil {
					if _, err := s.place(on, way, false); err != nil && on.Err() == nil {
						return err
					}
				}
				return nil
			})
		}
	}
	g.Go(func() error { return s.torment(on, ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, way := range ways {
		o, err := s.settle(ctx, way)
		if err != nil {
			return err
		}
		s.say("%-15s %s", way, o)
		if way == viaOutbox && (o.lost > 0 || o.ghosts > 0) {
			return fmt.Errorf("the outbox did not hold: %s", o)
		}
	}
	s.say("the shop was killed %d times", s.shop.Deaths())
	return nil
}

// torment goes on while on does, and leaves everything running.
func (s *stage) torment(on, ctx context.Context) error {
	for {
		select {
		case <-on.Done():
			return nil
		case <-time.After(100*time.Millisecond + rand.N(500*time.Millisecond)):
		}
		switch rand.IntN(8) {
		default:
			s.shop.Kill()
		case 0, 1:
			s.db.KillOutrider()
			if err := s.db.StartOutrider(ctx); err != nil {
				return err
			}
		case 2:
			if err := errors.Join(s.Kafka.Stop(ctx), s.Kafka.Start(ctx)); err != nil {
				return err
			}
		}
	}
}
