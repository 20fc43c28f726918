package poisontest_test

import (
	"context"
	"errors"
	"net"
	"sync"
)

// network is what lies between a relay and the brokers. It can be cut: then
// connections end and none is made.
type network struct {
	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func newNetwork() *network { return &network{conns: map[net.Conn]struct{}{}} }

var errCut = errors.New("the network is cut")

func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		_ = conn.Close()
		return nil, errCut
	}
	n.conns[conn] = struct{}{}
	return &wire{conn, n}, nil
}

// cut ends what is there, and keeps anything new from being made until mend.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	for conn := range n.conns {
		_ = conn.Close()
	}
}

func (n *network) mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}

type wire struct {
	net.Conn
	network *network
}

func (w *wire) Close() error {
	w.network.mu.Lock()
	delete(w.network.conns, w.Conn)
	w.network.mu.Unlock()
	return w.Conn.Close()
}
