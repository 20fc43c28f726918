package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// options say what is shown and how long its parts take; tests shorten them.
type options struct {
	hold  bool          // no faults; go on until the visit ends
	rate  int           // orders a second
	calm  time.Duration // undisturbed traffic before, between and after the outages
	away  time.Duration // how long something stays away
	limit time.Duration // of the whole show, when everything is built and started
	dir   string        // parent of all files; "" is the temporary folder
}

// show is one run.
type show struct {
	options
	*stage
	screen  *screen
	tally   *tally
	reader  *chaos.Reader
	outages []outage
}

// perform runs the show and leaves nothing behind. The error is nil if every
// promise was kept. With hold the end of visit is the end of the traffic, and
// the verdict follows; the end of ctx gives everything up.
func perform(ctx, visit context.Context, o options, screen *screen) (err error) {
	screen.text("Outrider: orders are committed in Postgres, their events arrive on Kafka, whatever breaks in between.",
		"building Outrider, starting Postgres and Kafka (the first time takes longer) …")
	stage, err := openStage(ctx, o.dir, screen.out)
	if err == nil {
		s := &show{options: o, stage: stage, screen: screen, tally: newTally()}
		err = s.run(ctx, visit)
		err = errors.Join(err, stage.close())
	}
	if cause := context.Cause(ctx); cause != nil && err != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// run opens the shop and the consumer, goes through the acts and judges.
func (s *show) run(ctx, visit context.Context) error {
	if !s.hold {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("the show takes longer than %v", s.limit))
		defer cancel()
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	shop, err := openShop(ctx, s.pool, s.tally, s.rate)
	if err != nil {
		return err
	}
	s.reader, err = chaos.NewReader(chaos.ReaderConfig{
		Brokers: []string{s.broker.address()}, Topics: []string{topic},
		OnRecord: func(r *chaos.Record) {
			took, first := s.tally.arrive(r.ID)
			s.screen.arrival(r, took, first)
		},
	})
	if err != nil {
		return err
	}
	// A first start with rows in the table is something else: so Outrider comes before the traffic.
	s.screen.begin()
	took, err := s.launch(ctx)
	stopReading := background(ctx, fail, s.reader.Run) // also if the launch failed: it closes the client
	defer stopReading()
	if err != nil {
		return err
	}
	s.introduce(took)
	stopOrders := background(ctx, fail, shop.run)
	defer stopOrders()

	if s.hold {
		err = s.stayUp(ctx, visit)
	} else {
		err = s.acts(ctx)
	}
	stopOrders()
	if err == nil {
		err = context.Cause(ctx) // of a service that failed
	}
	if err != nil {
		return err
	}
	return s.judge(ctx)
}

// background runs f until stop is called, which waits for it. An error of f ends the show.
func background(ctx context.Context, fail context.CancelCauseFunc, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := f(ctx); err != nil {
			fail(err)
		}
	})
	return func() { cancel(); running.Wait() }
}

func (s *show) introduce(took time.Duration) {
	s.screen.say(plain, "Postgres %d on port %d, Kafka (a fake one, in this process) on %s", s.server.Major(), s.server.Port(), s.broker.address())
	s.screen.say(plain, "Outrider runs (pid %d) and leads after %s; all it was told:", s.outrider.Pid(), short(took))
	for _, variable := range s.relay.Env {
		s.screen.say(dim, "  %s", variable)
	}
	s.screen.say(bold, "%d order services begin: about %d orders a second, each one transaction with its event", services, s.rate)
}

// acts is traffic, first undisturbed, then with Outrider killed, then with the broker stopped.
func (s *show) acts(ctx context.Context) error {
	if err := pause(ctx, s.calm); err != nil {
		return err
	}
	s.screen.say(red, "SIGKILL to Outrider (pid %d)", s.outrider.Pid())
	err := s.outage(ctx, "Outrider killed", s.outrider.Kill, func() error { return s.relaunch(ctx) })
	if err != nil {
		return err
	}
	if err := pause(ctx, s.calm); err != nil {
		return err
	}
	s.screen.say(red, "the broker is stopped")
	err = s.outage(ctx, "broker stopped", s.broker.stop, func() error {
		s.screen.say(bold, "the broker is started again")
		return s.broker.start()
	})
	if err != nil {
		return err
	}
	return pause(ctx, s.calm)
}

// relaunch starts Outrider again.
func (s *show) relaunch(ctx context.Context) error {
	took, err := s.launch(ctx)
	if err == nil {
		s.screen.say(bold, "Outrider is started again (pid %d) and leads after %s", s.outrider.Pid(), short(took))
	}
	return err
}

// outage takes something away under traffic, brings it back, and waits until
// every event of an order from before the return has arrived. If they do not
// come the show goes on: the verdict will say which.
func (s *show) outage(ctx context.Context, name string, takeAway func(), bringBack func() error) error {
	from := time.Now()
	takeAway()
	for left := s.away; left > 0; left -= time.Second {
		if err := pause(ctx, min(left, time.Second)); err != nil {
			return err
		}
		committed, delivered, _ := s.tally.state()
		s.screen.say(yellow, "orders go on: %d events wait", committed-delivered)
	}
	if err := bringBack(); err != nil {
		return err
	}
	back := time.Now()
	limited, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	err := poll(limited, func() (bool, error) { return !s.tally.owes(back), nil })
	s.outages = append(s.outages, outage{name, from, time.Now()})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		s.screen.say(red, "not everything has arrived %v later", quiet)
	default:
		_, _, again := s.tally.state()
		s.screen.say(bold, "all made good %s later; %d events so far came again, with the same id", short(time.Since(back)), again)
	}
	return nil
}

// pause lets the traffic go on undisturbed.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stayUp waits until the visit ends, and starts Outrider again when somebody has ended it.
func (s *show) stayUp(ctx, visit context.Context) error {
	s.invite()
	for {
		select {
		case <-visit.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.outrider.Done():
		}
		s.screen.say(red, "Outrider (pid %d) is gone", s.outrider.Pid())
		err := s.outage(ctx, "Outrider killed", func() {}, func() error { return s.relaunch(ctx) })
		if err != nil {
			return err
		}
		s.invite()
	}
}

// invite prints how to look, ready to be pasted.
func (s *show) invite() {
	url := s.server.DatabaseURL(database)
	s.screen.text("",
		"  curl http://"+s.outrider.Addr()+"/status",
		"  curl http://"+s.outrider.Addr()+"/metrics",
		"  kcat -b "+s.broker.address()+" -C -t "+topic+` -f '%k %s\n    %h\n'`,
		"  psql '"+url+"' -c 'TABLE outbox.relays' -x",
		"  psql '"+url+"' -c 'SELECT * FROM outbox.events ORDER BY seq DESC LIMIT 5'",
		fmt.Sprintf("  kill -9 %d    # Outrider; it is started again", s.outrider.Pid()),
		"  Ctrl-C        # the verdict, and the end", "")
}
