package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	limit = 10 * time.Second
	quiet = 100 * time.Millisecond // after which we believe that nothing comes
)

// pair is a client connected through a proxy, and the server's end of it.
type pair struct {
	*proxy.Proxy
	client, server *net.TCPConn
	accepted       chan *net.TCPConn
}

func newPair(t *testing.T) *pair {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pr := &pair{accepted: make(chan *net.TCPConn, 10)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			pr.accepted <- c.(*net.TCPConn)
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	if pr.Proxy, err = proxy.New(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pr.Close(); err != nil {
			t.Error(err)
		}
	})
	pr.client = pr.dial(t)
	pr.server = pr.accept(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); pr.Connections() == 0; <-tick.C { // the target accepts before the proxy has entered the pair
		if time.Now().After(deadline) {
			t.Fatal("the proxy has no connection")
		}
	}
	return pr
}

func (pr *pair) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", pr.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func (pr *pair) accept(t *testing.T) *net.TCPConn {
	t.Helper()
	select {
	case c := <-pr.accepted:
		t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(limit):
		t.Fatal("nothing was accepted")
		return nil
	}
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

// expectSilence demands an open connection on which nothing comes.
func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(quiet))
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
}

func expectError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		t.Fatalf("read: %v; want %v", err, want)
	}
}

func TestPass(t *testing.T) {
	pr := newPair(t)
	big := make([]byte, 5<<20)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, way := range [][2]*net.TCPConn{{pr.client, pr.server}, {pr.server, pr.client}} {
		wg.Go(func() {
			if _, err := way[0].Write(big); err != nil {
				t.Error(err)
			}
			_ = way[0].CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(way[1])
			if err != nil || !bytes.Equal(got, big) {
				t.Errorf("%d bytes arrived of %d, or others: %v", len(got), len(big), err)
			}
		})
	}
	wg.Wait()
	if up, down := pr.Bytes(); up != int64(len(big)) || down != int64(len(big)) {
		t.Errorf("counted %d up, %d down, want %d", up, down, len(big))
	}
}

func TestHalfClose(t *testing.T) {
	pr := newPair(t)
	if err := pr.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectError(t, pr.server, io.EOF)
	write(t, pr.server, "late answer")
	expect(t, pr.client, "late answer")
}

func TestStall(t *testing.T) {
	for name, c := range map[string]struct {
		direction proxy.Direction
		up, down  bool // still goes through
	}{
		"up":   {proxy.Up, false, true},
		"down": {proxy.Down, true, false},
		"both": {proxy.Both, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			pr := newPair(t)
			pr.Stall(c.direction)
			write(t, pr.client, "question")
			write(t, pr.server, "answer")
			for _, way := range []struct {
				goes bool
				to   net.Conn
				text string
			}{{c.up, pr.server, "question"}, {c.down, pr.client, "answer"}} {
				if way.goes {
					expect(t, way.to, way.text)
				} else {
					expectSilence(t, way.to)
				}
			}
			pr.Pass()
			if !c.up {
				expect(t, pr.server, "question")
			}
			if !c.down {
				expect(t, pr.client, "answer")
			}
		})
	}
}

// A black hole swallows the news of an end as well.
func TestStallHidesTheEnd(t *testing.T) {
	pr := newPair(t)
	pr.Stall(proxy.Down)
	if err := pr.server.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := pr.server.Close(); err != nil {
		t.Fatal(err)
	}
	expectSilence(t, pr.client)
	pr.Pass()
	expectError(t, pr.client, syscall.ECONNRESET)
}

func TestCut(t *testing.T) {
	for name, before := range map[string]func(*proxy.Proxy){
		"passing": func(*proxy.Proxy) {},
		"stalled": func(p *proxy.Proxy) { p.Stall(proxy.Both) },
		"slow":    func(p *proxy.Proxy) { p.Slow(1) },
	} {
		t.Run(name, func(t *testing.T) {
			pr := newPair(t)
			before(pr.Proxy)
			write(t, pr.client, "lost")
			pr.Cut()
			expectError(t, pr.client, syscall.ECONNRESET)
			if c, err := net.Dial("tcp", pr.Addr()); err == nil {
				defer func() { _ = c.Close() }()
				_ = c.SetReadDeadline(time.Now().Add(limit))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("a new connection during the cut: %v", err)
				}
			}
			pr.Pass()
			c := pr.dial(t)
			write(t, c, "hello")
			expect(t, pr.accept(t), "hello")
		})
	}
}

func TestReset(t *testing.T) {
	pr := newPair(t)
	pr.Slow(1)
	write(t, pr.client, "held back")
	if n := pr.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	pr.Reset()
	expectError(t, pr.client, syscall.ECONNRESET)
	if err := pr.Close(); err != nil {
		t.Fatal(err)
	}
	if n := pr.Connections(); n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// A reset is an event, not a mode: the next connection lives.
func TestResetOnce(t *testing.T) {
	pr := newPair(t)
	pr.Reset()
	expectError(t, pr.client, syscall.ECONNRESET)
	c := pr.dial(t)
	write(t, c, "h")
	expect(t, pr.accept(t), "h")
}

func TestSlow(t *testing.T) {
	pr := newPair(t)
	pr.Slow(20_000)
	began := time.Now()
	write(t, pr.client, string(make([]byte, 6_000)))
	expect(t, pr.server, string(make([]byte, 6_000)))
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("6000 bytes took %v at 20000 a second", took)
	}
}

func TestDelay(t *testing.T) {
	pr := newPair(t)
	pr.Delay(150 * time.Millisecond)
	began := time.Now()
	write(t, pr.client, "x")
	expect(t, pr.server, "x")
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("arrived after %v", took)
	}
	pr.Delay(time.Hour)
	write(t, pr.client, "y")
	expectSilence(t, pr.server)
	pr.Pass()
	expect(t, pr.server, "y")
}

func TestTargetAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	p, err := proxy.New(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr())
	if err == nil {
		expectError(t, c, syscall.ECONNRESET)
		_ = c.Close()
	}
}
