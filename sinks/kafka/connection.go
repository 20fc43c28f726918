package kafka

import (
	"context"
	"crypto/tls"
	"encoding/binary"
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
		return &oneProducerConn{conn, p}, nil
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
	return &oneProducerConn{secured, p}, nil
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

// oneProducerConn keeps a client that has sent rows from becoming another
// producer. franz-go asks for a new producer id when brokers have refused a batch
// or lost track, and goes on with the batches behind it: under the new id the
// brokers take them, before the refused ones come again in their place. The
// refusal is told to the sink too late to prevent that. So the client ends here,
// and the next one sends everything in order. franz-go writes a request at once.
type oneProducerConn struct {
	net.Conn
	producer *producer
}

// API keys of the Kafka protocol, which stand behind the four bytes of a request's length.
const (
	keyProduce        = 0
	keyInitProducerID = 22
)

var errAnotherProducer = fmt.Errorf("a client that has sent rows must not become another producer: %w", net.ErrClosed)

// Write implements [net.Conn].
func (c *oneProducerConn) Write(b []byte) (int, error) {
	p := c.producer
	if p.txn == nil && len(b) >= 6 {
		switch binary.BigEndian.Uint16(b[4:]) {
		case keyProduce:
			p.sent.Store(true)
		case keyInitProducerID:
			if p.sent.Load() {
				p.failed.Store(true)
				go p.shut() // which waits for what called us
				return 0, errAnotherProducer
			}
		}
	}
	return c.Conn.Write(b)
}
