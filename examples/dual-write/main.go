// Command dual-write shows why a service must not write to its database and to
// the broker: whichever comes first, a crash between the two leaves an order
// that nobody hears of, or news of an order that never was. The third way writes
// the event into the database, beside the order, and Outrider publishes it.
//
// It counts what was lost, in the database and on Kafka, after the service was
// killed between the two writes and the broker was away for a while.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-cdc/outrider/examples/lab"
)

func main() { os.Exit(run()) }

func run() int {
	if lab.Role() != "" {
		_, _ = fmt.Fprintln(os.Stderr, serve())
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	show := show
	if os.Getenv("CHAOS") != "" {
		show = chaos
	}
	if err := show(ctx, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

const (
	crashes = 20 // requests in whose middle the service dies
	calm    = 40 // those in which it does not
	outage  = 5  // those while the broker is away
)

// stage is a shop with its database, Outrider, and Kafka.
type stage struct {
	*lab.Lab

	shop *lab.Service
	db   *lab.Database
	out  io.Writer
}

func open(ctx context.Context, out io.Writer) (_ *stage, err error) {
	s := &stage{out: out}
	if s.Lab, err = lab.Open(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.Topics(ctx, 3, topicOf(databaseFirst), topicOf(brokerFirst), topicOf(viaOutbox)); err != nil {
		return nil, err
	}
	const tables = `CREATE TABLE orders (id uuid PRIMARY KEY, way text NOT NULL, customer text NOT NULL, cents bigint NOT NULL)`
	if s.db, err = s.Database(ctx, "shop", tables); err != nil {
		return nil, err
	}
	if s.shop, err = s.Start("shop", s.db); err != nil {
		return nil, err
	}
	return s, s.shop.Ready(ctx)
}

// place asks the shop for an order, and tells whether the shop said yes. A
// customer knocks until the shop is open, and goes away when it gives no answer.
func (s *stage) place(ctx context.Context, way string, die bool) (taken bool, err error) {
	body, err := json.Marshal(order{ID: uuid.NewString(), Customer: "alice", Cents: 1250})
	if err != nil {
		return false, err
	}
	err = lab.Poll(ctx, func() (err error) {
		taken, err = s.ask(ctx, way, body, die)
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return err
		}
		return nil
	})
	return taken, err
}

func (s *stage) ask(ctx context.Context, way string, body []byte, die bool) (taken bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.shop.URL+"/orders/"+way, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	if die {
		r.Header.Set("Die", "between the two writes")
	}
	r.Close = true // the next process has other connections
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false, err
	}
	return answer.StatusCode == http.StatusCreated, answer.Body.Close()
}

func show(ctx context.Context, out io.Writer) (err error) {
	s, err := open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	outcomes := map[string]outcome{}
	for _, way := range []string{databaseFirst, brokerFirst, viaOutbox} {
		refused, err := s.drive(ctx, way)
		if err != nil {
			return err
		}
		if outcomes[way], err = s.settle(ctx, way); err != nil {
			return err
		}
		s.say("%-15s %s; %d refused while the broker was away", way, outcomes[way], refused)
	}
	return verdict(outcomes)
}

// drive sends orders, some of which kill the shop, and some while the broker is away.
func (s *stage) drive(ctx context.Context, way string) (refused int, err error) {
	for i := range crashes + calm {
		die, deaths := i%3 == 2, s.shop.Deaths()
		if _, err := s.place(ctx, way, die); err != nil {
			return 0, err
		}
		if die {
			if err := s.shop.Back(ctx, deaths); err != nil {
				return 0, err
			}
		}
	}
	if err := s.Kafka.Stop(ctx); err != nil {
		return 0, err
	}
	for range outage {
		taken, err := s.place(ctx, way, false)
		if err != nil {
			return 0, err
		}
		if !taken {
			refused++
		}
	}
	return refused, s.Kafka.Start(ctx)
}

// settle waits until Outrider has published what there is, and compares.
func (s *stage) settle(ctx context.Context, way string) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = lab.Poll(ctx, func() (err error) {
		if o, err = compare(ctx, s.Lab, s.db.URL, way); err == nil && way == viaOutbox && o.lost > 0 {
			err = fmt.Errorf("not everything is published: %s", o)
		}
		return err
	})
	return o, err
}

// verdict is an error unless each way did what the README says of it.
func verdict(outcomes map[string]outcome) error {
	for way, o := range outcomes {
		if (o.lost > 0) != (way == databaseFirst) || (o.ghosts > 0) != (way == brokerFirst) {
			return fmt.Errorf("not as expected: %s: %s", way, o)
		}
	}
	return nil
}

func (s *stage) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }
