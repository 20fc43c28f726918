package replication_test

import (
	"context"
	"net"
	"syscall"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// The kernel gives up a host that vanished: in time for a blocked write, and
// also when nothing is written.
func TestSocketOptions(t *testing.T) {
	pg := postgres.Start(t, 0)
	var tcp *net.TCPConn
	c, err := replication.Dial(t.Context(), replication.Config{
		URL: pg.URL(), WALSenderTimeout: timeout,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
			tcp, _ = conn.(*net.TCPConn)
			return conn, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct{ level, option, want int }{
		"SO_KEEPALIVE":               {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE, seconds":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 5},
		"TCP_KEEPINTVL, seconds":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
		"TCP_KEEPCNT":                {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
		"TCP_USER_TIMEOUT, millisec": {syscall.IPPROTO_TCP, 0x12, 15000},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), o.level, o.option) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if got != o.want {
			t.Errorf("%s is %d, want %d", name, got, o.want)
		}
	}
}
