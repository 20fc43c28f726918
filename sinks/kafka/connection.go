package kafka

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
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
// producer. When brokers have refused a batch or lost track, franz-go raises its
// producer epoch by itself (KIP-360) and goes on with the batches behind the
// refused one: under the new epoch the brokers take them, before the refused rows
// come again in their place. The refusal is told to the sink too late to prevent
// that. So the client ends here, with nothing of it sent, and the next one sends
// everything in order. franz-go writes each request at once.
type oneProducerConn struct {
	net.Conn
	producer *producer
}

var errAnotherProducer = fmt.Errorf("a client that has sent rows must not become another producer: %w", net.ErrClosed)

// Write implements [net.Conn].
func (c *oneProducerConn) Write(b []byte) (int, error) {
	p := c.producer
	if p.txn != nil {
		return c.Conn.Write(b) // a transaction fails as a whole
	}
	if id, ok := producerOf(b); ok && !p.identity.CompareAndSwap(nil, &id) && *p.identity.Load() != id {
		p.failed.Store(true)
		go p.shut() // which waits for what called us
		return 0, errAnotherProducer
	}
	return c.Conn.Write(b)
}

// identity is what brokers know an idempotent producer by.
type identity struct {
	id    int64
	epoch int16
}

// Places in a record batch (Kafka documentation, Record Batch).
const (
	batchProducerID    = 43
	batchProducerEpoch = 51
	batchBaseSequence  = 53
)

// producerOf returns who sends the first batch of a produce request; all of one
// request have one producer. ok is false for every other request.
func producerOf(request []byte) (i identity, ok bool) {
	const head = 4 + 2 + 2 + 4 // length, api key, version, correlation id
	if len(request) < head+2 || binary.BigEndian.Uint16(request[4:]) != uint16(kmsg.Produce) {
		return i, false
	}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(int16(binary.BigEndian.Uint16(request[6:])))
	body := request[head+2:]
	if n := int16(binary.BigEndian.Uint16(request[head:])); n > 0 { // client id
		body = body[min(int(n), len(body)):]
	}
	if req.IsFlexible() {
		if len(body) == 0 || body[0] != 0 { // tags, of which franz-go sends none
			return i, false
		}
		body = body[1:]
	}
	if err := req.UnsafeReadFrom(body); err != nil { // nothing of it is kept
		return i, false
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			if len(p.Records) >= batchBaseSequence {
				return identity{
					id:    int64(binary.BigEndian.Uint64(p.Records[batchProducerID:])),
					epoch: int16(binary.BigEndian.Uint16(p.Records[batchProducerEpoch:])),
				}, true
			}
		}
	}
	return i, false
}
