package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// errLeaseOver looks like a closed connection to franz-go: it keeps the records
// and tries again, and each try fails until the lease is back or the client closed.
var errLeaseOver = fmt.Errorf("the lease of this relay is over: %w", net.ErrClosed)

// dial opens a connection for franz-go: the lease under TLS, so that not one
// byte leaves without it, the handshake included.
//
// Every error is one of dialling, also what TLS or its files say: franz-go
// then keeps what it has in flight. Begin tells the causes apart.
func (p *producer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.sink.opts.Dial(ctx, network, address)
	if err != nil {
		return nil, asDialError(network, err)
	}
	conn = &leasedConn{Conn: conn, lease: p.leased}
	if !p.sink.cfg.TLS {
		return conn, nil
	}
	cfg, err := p.sink.cfg.tlsConfig(address)
	if err != nil {
		_ = conn.Close()
		return nil, asDialError(network, err)
	}
	secured := tls.Client(conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, asDialError(network, fmt.Errorf("tls handshake: %w", err))
	}
	return secured, nil
}

func asDialError(network string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return err
	}
	return &net.OpError{Op: "dial", Net: network, Err: err}
}

// leasedConn writes only while the lease holds.
type leasedConn struct {
	net.Conn
	lease func() bool
}

// writeChunk bounds what one Write hands to the kernel after it asked for the lease.
const writeChunk = 64 << 10

// Write implements [net.Conn].
func (c *leasedConn) Write(b []byte) (int, error) {
	written := 0
	for {
		if !c.lease() {
			return written, errLeaseOver
		}
		n, err := c.Conn.Write(b[written:min(len(b), written+writeChunk)])
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// Close implements [net.Conn]. Without the lease it also throws away what the
// kernel has not sent: it would go on sending that for minutes, and another
// relay may have published newer rows meanwhile.
func (c *leasedConn) Close() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok && !c.lease() {
		_ = tcp.SetLinger(0) // fails only on a connection that is closed already
	}
	return c.Conn.Close()
}
