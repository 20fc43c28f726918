package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is one connection: the client's to us, and ours to the server.
type link struct {
	proxy          *Proxy
	client, server *net.TCPConn
	inspector      Inspector // nil: nobody looks
	once           sync.Once
	gone           chan struct{} // closed by reset
}

// reset ends both sides.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.gone)
		reset(l.client)
		reset(l.server)
	})
}

// reset makes the kernel send RST instead of FIN, and drop what it holds.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// forward copies one direction. An orderly end is passed on as such, so that a
// half-closed connection stays one; anything else resets both sides. Ends and
// resets travel like bytes: while their direction is stalled, nobody hears of them.
func (l *link) forward(dst, src *net.TCPConn, d Direction, count *atomic.Int64) {
	buffer := make([]byte, 32<<10)
	for {
		n, readErr := src.Read(buffer)
		if n > 0 && l.inspector != nil && !l.inspector.Look(d, buffer[:n]) {
			l.reset()
			return
		}
		if err := l.send(dst, buffer[:n], d, count); err != nil {
			l.pass(Both &^ d) // dst refused: that news goes the other way
			l.reset()
			return
		}
		if readErr == nil {
			continue
		}
		if l.pass(d) && errors.Is(readErr, io.EOF) {
			_ = dst.CloseWrite()
			return
		}
		l.reset()
		return
	}
}

// pass waits while d is stalled. It reports whether the link is still there.
func (l *link) pass(d Direction) bool {
	for {
		m := l.proxy.current()
		if m.stalled&d == 0 {
			return !m.cut && !l.isGone()
		}
		select {
		case <-m.changed:
		case <-l.gone:
			return false
		}
	}
}

func (l *link) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// send hands b on under the mode that holds when each part's turn comes.
func (l *link) send(dst net.Conn, b []byte, d Direction, count *atomic.Int64) error {
	delayed := false
	for len(b) > 0 {
		if !l.pass(d) {
			return net.ErrClosed
		}
		m := l.proxy.current()
		part, pause := b, time.Duration(0)
		if m.rate > 0 { // a twentieth of a second at a time
			part = b[:min(len(b), max(1, m.rate/20))]
			pause = time.Duration(len(part)) * time.Second / time.Duration(m.rate)
		}
		if m.delay > 0 && !delayed {
			pause, delayed = m.delay, true
		}
		if m.stalled&d != 0 || !l.wait(pause, m.changed) {
			delayed = false
			continue // another mode: begin this part again under it
		}
		n, err := dst.Write(part)
		count.Add(int64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// wait reports whether d went by before the mode changed or the link was gone.
func (l *link) wait(d time.Duration, changed <-chan struct{}) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return false
	case <-l.gone:
		return false
	}
}
