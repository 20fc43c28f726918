package relay_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// way is one address for whichever server is there.
type way struct {
	l      net.Listener
	mu     sync.Mutex
	target string
	open   []net.Conn
	wg     sync.WaitGroup
}

func openWay(t *testing.T, to *postgres.Server) *way {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{l: l, target: fmt.Sprintf("127.0.0.1:%d", to.Port())}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); w.lead(""); w.wg.Wait() })
	return w
}

func (w *way) addr() string { return w.l.Addr().String() }

func (w *way) lead(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = target
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

func (w *way) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	w.mu.Lock()
	target := w.target
	w.mu.Unlock()
	if target == "" {
		return
	}
	s, err := new(net.Dialer).DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	w.mu.Lock()
	w.open = append(w.open, c, s)
	w.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(s, c); _ = s.Close(); _ = c.Close() })
	wg.Go(func() { _, _ = io.Copy(c, s); _ = s.Close(); _ = c.Close() })
	wg.Wait()
}

// The copy is from before the relay's first start: it has no progress row at all.
func TestDatabaseSetBackToBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 18)
	w.write(1)
	clone := w.clone()
	cfg := w.config()
	cfg.DatabaseURL = either(w.pg, clone)
	r := w.start(cfg, &memory{})
	r.awaitPhase(w, "streaming")
	w.write(2)
	r.awaitValues("1", "2")
	r.awaitPublished(w)
	w.goTo(clone)
	w.write(12)
	r.awaitRole(relay.RoleHalted, "database_rewound")
	r.stop()
	r = w.start(cfg, r.sink)
	r.awaitFirsts("1", "2", "12")
}

// A wrong answer that can be seen to be wrong is refused: after a restore the
// ids of the old server would hide rows for ever.
func TestTrustXIDsAfterARestoreIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, distribution(t, 15))
	for range 300 {
		w.exec(`CREATE TEMPORARY TABLE x (); DROP TABLE x`)
	}
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	r.awaitPublished(w)
	r.stop()
	w.write(2, 3)
	w.restore(postgres.Start(t, 18))
	cfg := w.config()
	r = w.start(cfg, r.sink)
	r = r.answer(w, cfg, "trust-xids")
	s := r.awaitRole(relay.RoleHalted, "xids_not_kept")
	w.follow(s.Hint, &cfg)
	r.stop()
	r = w.start(cfg, r.sink)
	w.write(4)
	r.awaitFirsts("1", "2", "3", "4")
}

// Servers from one prepared image have one identifier.
func TestRestoreOnAServerOfTheSameIdentifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 18)
	for range 300 {
		w.exec(`CREATE TEMPORARY TABLE x (); DROP TABLE x`)
	}
	r := w.start(w.config(), &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	r.awaitPublished(w)
	r.stop()
	w.write(2, 3)
	w.restore(postgres.Start(t, 18))
	cfg := w.config()
	r = w.start(cfg, r.sink)
	r = r.answer(w, cfg, "republish")
	w.write(4)
	r.awaitFirsts("1", "2", "3", "4")
}

// The database is set back by less than the time between two writes of the
// progress row, as by storage that replicates asynchronously: the row is the
// same, and what the relay remembers is of rows that are gone.
func TestDatabaseSetBackByAMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 18)
	way := openWay(t, w.pg)
	cfg := w.config()
	cfg.DatabaseURL = secret.New(strings.Replace(w.pg.URL(), fmt.Sprintf("127.0.0.1:%d", w.pg.Port()), way.addr(), 1))
	r := w.start(cfg, &memory{})
	r.awaitPhase(w, "streaming")
	w.write(1)
	r.awaitValues("1")
	r.awaitPublished(w)
	held := postgres.Connect(t, w.pg.URL()) // no progress write from here on
	if _, err := held.Exec(t.Context(), `BEGIN; SELECT FROM outbox.relays FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	clone := w.clone()
	for from := 2; from < 600; from += 100 {
		w.many(from, 100)
	}
	r.awaitValues(upTo(1, 601)...)
	way.lead("")
	w.goTo(clone)
	w.many(1001, 100)
	way.lead(fmt.Sprintf("127.0.0.1:%d", clone.Port()))
	await(t, func() error {
		if s := r.Status(); s.Role == relay.RoleHalted {
			return nil
		}
		if got := r.sink.values(); got[len(got)-1] == "1100" {
			return nil
		}
		return fmt.Errorf("neither halted nor published: %+v", r.Status())
	})
	r.stop()
	r = w.start(cfg, r.sink)
	r.awaitFirsts(append(upTo(1, 601), upTo(1001, 100)...)...)
}
