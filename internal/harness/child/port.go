package child

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports come from below the range from which Linux takes the local ports of
// outgoing connections (32768 and up): a server that is down for a while finds
// its port free again, and not lent to some client.
const lowPort, highPort = 20000, 32000

// FreePort is one of [FreePorts].
func FreePort() (int, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return 0, err
	}
	return ports[0], nil
}

// FreePorts returns n different TCP ports of 127.0.0.1 on which nobody listens
// now. Another process may take one before it is used: whoever starts a server
// tries again.
func FreePorts(n int) (ports []int, err error) {
	var open []net.Listener
	defer func() {
		for _, l := range open {
			err = errors.Join(err, l.Close())
		}
	}()
	var last error
	for range 200 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := lowPort + rand.N(highPort-lowPort)
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		open, ports = append(open, l), append(ports, port)
	}
	return nil, fmt.Errorf("find %d free ports: %w", n, last)
}
