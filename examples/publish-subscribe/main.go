// Command publish-subscribe shows one event and many who care about it: the shop
// publishes an order once, and knows nobody; billing, shipping and statistics
// read it, each at a pace of its own. One of them is away for a while and misses
// nothing; another one is founded later and reads what was before its time.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/outrider-cdc/outrider/examples/lab"
)

func main() { os.Exit(run()) }

func run() int {
	if lab.Role() != "" {
		_, _ = fmt.Fprintln(os.Stderr, play(lab.Role()))
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := show(ctx, os.Stdout, os.Getenv("CHAOS") != ""); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// play is main of a service.
func play(role string) error {
	if role == "shop" {
		return shop()
	}
	return subscriber(role)
}

const (
	customers = 10
	orders    = 100 // in each act
)

// stage is the shop and those who listen.
type stage struct {
	*lab.Lab

	out   io.Writer
	shop  *lab.Service
	db    *lab.Database
	names []string
	those map[string]listener
	next  int64 // number of each customer's next order
}

type listener struct {
	*lab.Service

	db *lab.Database
}

// show plays the three acts. With chaos somebody is killed between any two orders.
func show(ctx context.Context, out io.Writer, chaos bool) (err error) {
	s := &stage{out: out, those: map[string]listener{}}
	if s.Lab, err = lab.Open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Topics(ctx, 3, topic); err != nil {
		return err
	}
	if s.db, err = s.Database(ctx, "shop", shopTables); err != nil {
		return err
	}
	if s.shop, err = s.Start("shop", s.db); err != nil {
		return err
	}
	for _, name := range []string{"billing", "shipping", "statistics"} {
		if err := s.found(ctx, name); err != nil {
			return err
		}
	}
	acts := []struct {
		title  string
		before func() error
		away   string
	}{
		{title: "all listen"},
		{title: "shipping is away", before: func() error { s.those["shipping"].Stop(); return nil }, away: "shipping"},
		{title: "shipping is back", before: func() error { s.those["shipping"].Resume(); return nil }},
		{title: "loyalty is founded", before: func() error { return s.found(ctx, "loyalty") }},
	}
	for _, act := range acts {
		if act.before != nil {
			if err := act.before(); err != nil {
				return err
			}
		}
		if err := s.trade(ctx, chaos); err != nil {
			return err
		}
		if err := s.told(ctx, act.title, act.away); err != nil {
			return err
		}
	}
	return s.verdict(ctx)
}

// found starts somebody who listens.
func (s *stage) found(ctx context.Context, name string) error {
	db, err := s.Inbox(ctx, name, subscriberTables)
	if err != nil {
		return err
	}
	service, err := s.Start(name, db)
	s.names, s.those[name] = append(s.names, name), listener{service, db}
	return err
}

// trade places orders until each was taken.
func (s *stage) trade(ctx context.Context, chaos bool) error {
	for range orders / customers {
		s.next++
		for c := range customers {
			if chaos {
				if err := s.strike(ctx, c); err != nil {
					return err
				}
			}
			o := placed{Customer: fmt.Sprint("customer-", c), Number: s.next, Cents: 1250}
			if err := lab.Poll(ctx, func() error { return s.place(ctx, o) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// strike kills somebody.
func (s *stage) strike(ctx context.Context, n int) error {
	switch n % 5 {
	case 0:
		s.shop.Kill()
	case 1:
		s.db.KillOutrider()
		return s.db.StartOutrider(ctx)
	default:
		s.those[s.names[n%len(s.names)]].Kill()
	}
	return nil
}

// place asks for an order until it stands. The number makes it idempotent: one that stands already was taken.
func (s *stage) place(ctx context.Context, o placed) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.shop.URL+"/orders", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Close = true // the next process has other connections
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode == http.StatusCreated {
		return err
	}
	stands, err := s.db.Get(ctx, `SELECT count(*)::text FROM orders WHERE customer = $1 AND number = $2`, o.Customer, o.Number)
	if err == nil && stands != "1" {
		err = errors.New(answer.Status)
	}
	return err
}

// told waits until everybody who is there knows of every order, and says so.
func (s *stage) told(ctx context.Context, title, away string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := fmt.Sprint(s.next * customers)
	var line strings.Builder
	fmt.Fprintf(&line, "%-19s %3s orders:", title, all)
	for _, name := range s.names {
		var n string
		err := lab.Poll(ctx, func() (err error) {
			if n, err = s.those[name].db.Get(ctx, `SELECT count(*)::text FROM seen`); err == nil && n != all && name != away {
				err = fmt.Errorf("%s knows of %s orders of %s", name, n, all)
			}
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(&line, "  %s %s", name, n)
	}
	_, err := fmt.Fprintln(s.out, line.String())
	return err
}

// verdict is an error unless everybody knows of each order once, in its customer's order.
func (s *stage) verdict(ctx context.Context) error {
	for _, name := range s.names {
		const wrong = `SELECT count(*)::text FROM (SELECT number, row_number() OVER (PARTITION BY customer ORDER BY at) AS place FROM seen) s WHERE number <> place`
		n, err := s.those[name].db.Get(ctx, wrong)
		if err != nil {
			return err
		}
		if n != "0" {
			return fmt.Errorf("%s has %s orders twice, not at all, or out of order", name, n)
		}
	}
	_, err := fmt.Fprintln(s.out, "each knows of each order once, and of each customer's in their order")
	return err
}
