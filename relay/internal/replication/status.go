package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// ErrSilent means that nothing was heard for a whole timeout, although a reply
// was asked for at half of it; or that no status was taken for so long.
var ErrSilent = errors.New("the server is silent")

// liveness keeps the times of a session.
type liveness struct {
	interval time.Duration // between two statuses
	silence  time.Duration // how long nothing may be heard
	nextTick time.Time
	heard    time.Time
	asked    time.Time // when a reply was asked for last
	buf      [statusLen]byte
}

// newLiveness: a status each third of the timeout, so that one may be late.
func newLiveness(timeout time.Duration, now time.Time) liveness {
	return liveness{interval: timeout / 3, silence: timeout, heard: now, nextTick: now}
}

// arrivals notes when bytes came: one look at the clock for all the frames that
// one read brings. A long message over a slow line counts as heard piece by
// piece; without that it would never arrive, as the session would end in its
// middle, and in that of the next.
type arrivals struct {
	src  io.Reader
	last time.Time
}

func (a *arrivals) Read(p []byte) (int, error) {
	n, err := a.src.Read(p)
	if n > 0 {
		a.last = time.Now()
	}
	return n, err
}

// hear takes in what has arrived since.
func (c *Conn) hear() {
	if c.arrivals.last.After(c.heard) {
		c.heard = c.arrivals.last
	}
}

// LastHeard is when anything came from the server, or when a Tick last found
// that it could not be heard.
func (c *Conn) LastHeard() time.Time {
	c.hear()
	return c.heard
}

// NextTick is when Tick wants to be called again at the latest.
func (c *Conn) NextTick() time.Time { return c.nextTick }

// SetReadDeadline bounds the next Receive. Only reads: a status that is cut in
// the middle would ruin a TLS connection.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.socket.SetReadDeadline(t) }

// Interrupt makes a Receive that waits, or the next one, return as at a
// deadline. Any goroutine, after Start. SetReadDeadline undoes it: whoever moves
// the deadline looks afterwards whether there was a reason to be interrupted.
func (c *Conn) Interrupt() { _ = c.socket.SetReadDeadline(time.Unix(1, 0)) }

// Tick sends a status when one is due. While reading it also watches the
// server: an idle one says nothing by itself, so after half the timeout it is
// asked to reply, and after the whole of it [ErrSilent] is returned. While the
// caller does not read, or still has frames that were read before, the server
// cannot be heard: its time starts anew.
func (c *Conn) Tick(write, flush LSN, reading bool) error {
	now := time.Now()
	c.hear()
	if !reading || c.frames.ready() {
		c.heard = now
	}
	silent := now.Sub(c.heard)
	if silent >= c.silence {
		return fmt.Errorf("%w for %s", ErrSilent, silent.Round(time.Millisecond))
	}
	ask := silent >= c.silence/2 && now.Sub(c.asked) >= c.silence/2
	if !ask && now.Before(c.nextTick) {
		return nil
	}
	return c.Status(write, flush, ask)
}

// statusLen is a CopyData message with a standby status update.
const statusLen = 1 + 4 + 34

// postgresEpoch is 2000-01-01 in microseconds since 1970.
const postgresEpoch = 946_684_800 * 1_000_000

// Status sends a standby status update: write as given, flush and apply = flush.
// A flush of 0 is sent as 0, which moves nothing: the server takes write for
// enough when it goes down, and the slot stays where it is. After an error the
// connection is lost: half a status may have been sent.
func (c *Conn) Status(write, flush LSN, reply bool) error {
	now := time.Now()
	c.hear()
	b := append(c.buf[:0], 'd', 0, 0, 0, statusLen-1, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(write))
	b = binary.BigEndian.AppendUint64(b, uint64(flush))
	b = binary.BigEndian.AppendUint64(b, uint64(flush))
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMicro()-postgresEpoch))
	if reply {
		b = append(b, 1)
		c.asked = now
	} else {
		b = append(b, 0)
	}
	c.nextTick = now.Add(c.interval)
	// In time to ask for a reply, and in time to give up.
	for _, until := range [...]time.Time{c.heard.Add(c.silence / 2), c.heard.Add(c.silence)} {
		if now.Before(until) && until.Before(c.nextTick) {
			c.nextTick = until
		}
	}
	if err := c.socket.SetWriteDeadline(now.Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.socket.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) { // a dead peer, unlike a deadline of Receive
		return fmt.Errorf("%w: it took no status for %s", ErrSilent, c.timeout)
	}
	return err
}

// End ends the stream in order: CopyDone, then whatever the server still says,
// until it has said CommandComplete. It has then processed every status. A
// server in the middle of a large transaction sends all of it first: ctx bounds
// the wait, and at most the timeout. Only Close makes sense afterwards.
func (c *Conn) End(ctx context.Context) error {
	deadline := time.Now().Add(c.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.socket.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.socket.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.socket.Write([]byte{'c', 0, 0, 0, 4}); err != nil {
		return fmt.Errorf("copy done: %w", err)
	}
	for {
		kind, body, err := c.frames.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for the end of the stream: %w", err)
		case err != nil:
			return err
		case kind == 'C' || kind == 'Z':
			return nil
		case kind == 'E':
			_, err := parseFrame(kind, body)
			return err
		}
	}
}
