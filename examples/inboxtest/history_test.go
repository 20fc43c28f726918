package inboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/inbox"
)

// reader consumes the logs of a history, with every fault that a consumer has:
// rolled back transactions, offsets that were not committed, replays.
type reader struct {
	h       *history
	random  *rand.Rand
	offsets map[int]int // -1 is the topic of dead letters
	times   map[int][]time.Time
	effects map[string]int
	trail   map[string][]string // answers for each id, for whoever looks for a reason
	// take is one transaction; commit false rolls it back.
	take  func(records []inbox.Record, commit bool) ([]bool, error)
	purge func() error
	done  map[string]int
}

func (c *reader) log(p int) []entry {
	if p < 0 {
		return c.h.dead
	}
	return c.h.logs[p]
}

// poll handles some records of one partition, maybe in vain.
func (c *reader) poll(p int) error {
	log := c.log(p)
	from := c.offsets[p]
	to := min(len(log), from+1+c.random.IntN(80))
	if from == to {
		return nil
	}
	topic, partition := "orders", p
	if p < 0 {
		topic, partition = "dead", 0
	}
	var records []inbox.Record
	for i, e := range log[from:to] {
		records = append(records, e.record(topic, partition, int64(from+i)))
	}
	commit := c.random.IntN(6) > 0
	first, err := c.take(records, commit)
	if err != nil {
		return err
	}
	if !commit {
		c.done["rolled back"]++
		return nil
	}
	for i, ok := range first {
		e := log[from+i]
		c.trail[e.row.id] = append(c.trail[e.row.id], fmt.Sprintf("%s %v: %v, source %s, position %s, committed %s, key %q, dead %v",
			c.h.now.Format(time.DateTime), records[i], ok, e.source, e.position, e.stamp.Format(time.DateTime), e.row.key, e.dead))
		if ok {
			c.effects[e.row.id]++
		}
	}
	for range to - len(c.times[p]) {
		c.times[p] = append(c.times[p], c.h.now)
	}
	switch {
	case c.random.IntN(8) == 0:
		c.done["offset not committed"]++
	case c.random.IntN(25) == 0:
		c.replay(p)
	default:
		c.offsets[p] = to
	}
	return nil
}

// replay sets the offset back: to the beginning where positions tell everything,
// else as far as ids are remembered.
func (c *reader) replay(p int) {
	c.done["replay"]++
	c.offsets[p] = 0
	if len(c.times[p]) > 0 && c.h.now.Sub(c.times[p][0]) > keep && !c.h.keyless {
		c.done["replay of what ids do not reach"]++
	}
	if c.h.keyless && p >= 0 {
		for i, at := range c.times[p] {
			if c.h.now.Sub(at) > setBack {
				c.offsets[p] = i + 1
			}
		}
	}
}

func (c *reader) run() error {
	var failed error
	c.h.catchUp = func() { failed = errors.Join(failed, c.all()) }
	for range 120 {
		if c.h.step(); failed != nil {
			return failed
		}
		if err := c.poll(c.random.IntN(c.h.partitions+1) - 1); err != nil {
			return err
		}
		if c.random.IntN(15) == 0 {
			if err := c.purge(); err != nil {
				return err
			}
		}
	}
	c.h.finish()
	return c.all()
}

// all reads until nothing is unread.
func (c *reader) all() error {
	for behind := true; behind; {
		behind = false
		for p := -1; p < c.h.partitions; p++ {
			behind = behind || c.offsets[p] < len(c.log(p))
			if err := c.poll(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// verdict counts events that had no effect, and those that had more than one.
func (c *reader) verdict() (swallowed, repeated, events int) {
	seen := map[string]bool{}
	for p := -1; p < c.h.partitions; p++ {
		for _, e := range c.log(p) {
			seen[e.row.id] = true
		}
	}
	for _, s := range c.h.services {
		for _, r := range s.rows {
			if !seen[r.id] {
				panic("the model lost row " + r.id)
			}
		}
	}
	for id := range seen {
		switch n := c.effects[id]; {
		case n == 0:
			swallowed++
		case n > 1:
			repeated++
		}
	}
	return swallowed, repeated, len(seen)
}

func newReader(seed uint64) *reader {
	return &reader{
		h: newHistory(seed), random: rand.New(rand.NewPCG(seed, 11)), offsets: map[int]int{}, times: map[int][]time.Time{},
		effects: map[string]int{}, trail: map[string][]string{}, done: map[string]int{}, purge: func() error { return nil },
	}
}

// viaInbox lets the functions in the database decide, at the time of the history.
func (c *reader) viaInbox(ctx context.Context, conn *pgx.Conn, consumer inbox.Consumer) {
	c.take = func(records []inbox.Record, commit bool) (first []bool, err error) {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { _ = tx.Rollback(ctx) }()
		if first, err = inbox.NewerPgx(ctx, tx, consumer, records...); err != nil || !commit {
			return first, err
		}
		for _, table := range []string{"inbox", "inbox_chunks"} { // but not what is kept for ever
			if _, err := tx.Exec(ctx, `UPDATE outbox.`+table+` SET received_at = $2 WHERE consumer = $1 AND received_at = now()`, consumer.Name, c.h.now); err != nil {
				return nil, err
			}
		}
		return first, tx.Commit(ctx)
	}
	c.purge = func() error {
		n, err := inbox.PurgePgx(ctx, conn, consumer, time.Since(c.h.now)+keep)
		if n > 0 {
			c.done["purge"]++
		}
		return err
	}
}

// seeds are those of a run, a new one each time unless the environment names one.
func seeds(t *testing.T, n int) (list []uint64) {
	t.Helper()
	if text := os.Getenv("TEST_INBOX_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	for range n {
		list = append(list, rand.Uint64())
	}
	return list
}

// TestEachEventOnceInAnyHistory: whatever relays and consumers do, each event
// that is on Kafka has one effect.
func TestEachEventOnceInAnyHistory(t *testing.T) {
	conn := connect(t, consumerDatabase(t, postgres.Start(t, 0)))
	done := map[string]int{}
	events, records := 0, 0
	list := seeds(t, 60)
	for i, seed := range list {
		c := newReader(seed)
		c.viaInbox(t.Context(), conn, inbox.Consumer{Name: fmt.Sprint("history ", i)})
		if err := c.run(); err != nil {
			t.Fatalf("TEST_INBOX_SEED=%d: %v", seed, err)
		}
		swallowed, repeated, n := c.verdict()
		if swallowed+repeated > 0 {
			t.Errorf("TEST_INBOX_SEED=%d: of %d events %d had no effect, %d more than one", seed, n, swallowed, repeated)
			for id, trail := range c.trail {
				if c.effects[id] != 1 {
					t.Logf("%s:\n%s", id, strings.Join(trail, "\n"))
				}
			}
		}
		for _, from := range []map[string]int{c.done, c.h.done} {
			for what, n := range from {
				done[what] += n
			}
		}
		events += n
		for p := -1; p < c.h.partitions; p++ {
			records += len(c.log(p))
		}
	}
	t.Logf("%d events, %d records; %v", events, records, done)
	for _, what := range []string{
		"restart", "promotion", "recovery", "republish", "zombie", "retry", "retry of a row that had arrived", "partition added",
		"rolled back", "offset not committed", "replay", "replay of what ids do not reach", "purge",
	} {
		if done[what] == 0 && len(list) > 1 {
			t.Errorf("no history had: %s", what)
		}
	}
	if records < events*5/4 && len(list) > 1 {
		t.Errorf("%d records for %d events: there was little to drop", records, events)
	}
}

// TestPositionsAloneWouldNotDo: the same histories break the watermark that
// forgets ids, both ways. It shows that the test above can fail.
func TestPositionsAloneWouldNotDo(t *testing.T) {
	swallowed, repeated := 0, 0
	for _, seed := range seeds(t, 60) {
		c := newReader(seed)
		highest := map[string]string{}
		c.take = func(records []inbox.Record, commit bool) (first []bool, err error) {
			for _, r := range records {
				source, _ := r.Header("outrider-source")
				position, _ := r.Header("outrider-position")
				stream := fmt.Sprint(r.Topic, r.Partition, string(source))
				first = append(first, string(position) > highest[stream])
				if commit {
					highest[stream] = max(highest[stream], string(position))
				}
			}
			return first, nil
		}
		if err := c.run(); err != nil {
			t.Fatal(err)
		}
		s, r, _ := c.verdict()
		swallowed, repeated = swallowed+s, repeated+r
	}
	t.Logf("swallowed %d, repeated %d", swallowed, repeated)
	if os.Getenv("TEST_INBOX_SEED") == "" && (swallowed == 0 || repeated == 0) {
		t.Errorf("swallowed %d, repeated %d: the histories are tame", swallowed, repeated)
	}
}
