package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// door is one address for whichever server is the primary, as a service or a
// virtual IP is in production: clients keep the address when the server moves.
type door struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	target string // "" refuses everybody
	open   map[net.Conn]struct{}
}

func openDoor(target string) (*door, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", target, err)
	}
	d := &door{listener: l, target: target, open: map[net.Conn]struct{}{}}
	d.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // only close ends it
			}
			d.wg.Go(func() { d.serve(client) })
		}
	})
	return d, nil
}

func (d *door) address() string { return d.listener.Addr().String() }

// lead cuts all connections and leads new ones to target; "" refuses them.
func (d *door) lead(target string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = target
	for c := range d.open {
		_ = c.Close()
	}
	clear(d.open)
}

func (d *door) close() {
	_ = d.listener.Close()
	d.lead("")
	d.wg.Wait()
}

// serve carries one connection until either side has ended.
func (d *door) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	d.mu.Lock()
	target := d.target
	d.mu.Unlock()
	if target == "" {
		return
	}
	server, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	d.mu.Lock()
	moved := d.target != target
	if !moved {
		d.open[client], d.open[server] = struct{}{}, struct{}{}
	}
	d.mu.Unlock()
	if moved {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_, _ = client.Close(), server.Close()
		})
	}
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, client)
	delete(d.open, server)
}
