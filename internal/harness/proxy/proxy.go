package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is which way bytes go.
type Direction int

// Up is from the client to the server, Down the other way.
const (
	Up Direction = 1 << iota
	Down
	Both = Up | Down
)

// mode is how connections are treated; a change makes a new one.
type mode struct {
	changed chan struct{} // closed when another mode holds
	cut     bool
	stalled Direction
	rate    int           // bytes per second and direction of a connection; 0: no limit
	delay   time.Duration // for each piece that is forwarded
}

// Proxy forwards connections from a port of its own to a target. Its methods
// may be called from any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	up, down atomic.Int64
	wg       sync.WaitGroup

	mu      sync.Mutex
	mode    mode
	links   map[*link]struct{}
	inspect func() Inspector // nil: nobody looks
}

// Inspector looks at what one connection brings, in order. It sees each
// direction from a goroutine of its own, before the bytes are passed on.
type Inspector interface {
	// Look returns false to have the connection reset in place of passing b,
	// which it must not keep. Nothing of that direction passes before it returns.
	Look(d Direction, b []byte) bool
}

// New listens on a free port of 127.0.0.1 and forwards to target. Close it.
func New(target string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", target, err)
	}
	p := &Proxy{target: target, listener: l, links: map[*link]struct{}{}}
	p.mode.changed = make(chan struct{})
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the address for clients.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Bytes is how many bytes were handed to the server and to clients so far.
func (p *Proxy) Bytes() (up, down int64) { return p.up.Load(), p.down.Load() }

// Connections is how many clients are connected through to the target now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Pass forwards at full speed, as at the beginning; what was held back while
// stalled follows. Connections that were cut stay cut.
func (p *Proxy) Pass() { p.set(mode{}) }

// Cut resets all connections, and every new one at once, until another mode is set.
func (p *Proxy) Cut() {
	p.set(mode{cut: true})
	p.Reset()
}

// Reset resets all connections once; new ones are treated as before.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Stall stops forwarding in that direction without closing anything: a black hole.
func (p *Proxy) Stall(d Direction) { p.set(mode{stalled: d}) }

// Slow forwards at most that many bytes per second and direction on each connection.
func (p *Proxy) Slow(bytesPerSecond int) { p.set(mode{rate: max(1, bytesPerSecond)}) }

// Delay holds every piece back for d. A piece is what one read brings, at most
// 32 KiB, and the next is read after it: this is a slow path, not a long one.
func (p *Proxy) Delay(d time.Duration) { p.set(mode{delay: d}) }

// Inspect has open called for each connection that comes from now on.
func (p *Proxy) Inspect(open func() Inspector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inspect = open
}

// Close stops listening, resets all connections, and waits until all is over.
// It may be called again.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.Cut()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) set(m mode) {
	m.changed = make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.mode.changed)
	p.mode = m
}

func (p *Proxy) current() mode {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // only Close ends it: a client that gave up is no error on Linux or macOS
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// dialLimit is for a frozen server whose queue of new connections is full.
const dialLimit = 10 * time.Second

// serve carries one connection until both directions have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	if p.current().cut {
		reset(client)
		return
	}
	server, err := (&net.Dialer{Timeout: dialLimit}).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	l := &link{proxy: p, client: client, server: server.(*net.TCPConn), gone: make(chan struct{})}
	if !p.add(l) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.forward(l.server, l.client, Up, &p.up) })
	wg.Go(func() { l.forward(l.client, l.server, Down, &p.down) })
	wg.Wait()
	_, _ = l.client.Close(), l.server.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// add refuses, and resets, what arrives after a cut began: Reset has not seen it.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode.cut {
		l.reset()
		return false
	}
	if p.inspect != nil {
		l.inspector = p.inspect()
	}
	p.links[l] = struct{}{}
	return true
}
