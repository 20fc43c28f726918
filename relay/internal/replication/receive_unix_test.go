//go:build unix

package replication_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
	"github.com/outrider-cdc/outrider/relay/internal/replication/walsender"
)

// socketPair is what a sidecar has to its server: a Unix-domain socket.
func socketPair() (client, server net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(f); err != nil {
			return nil, nil, err
		}
		_ = f.Close() // FileConn has its own
	}
	return ends[0], ends[1], nil
}

// BenchmarkReceive is what a frame with 200 bytes of the plugin's costs from the
// socket to the caller, while another goroutine writes as fast as it can.
func BenchmarkReceive(b *testing.B) {
	s := walsender.New(b)
	var wire net.Conn
	c, err := replication.Dial(b.Context(), replication.Config{
		URL: walsender.URL, WALSenderTimeout: timeout,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server, err := socketPair()
			if err != nil {
				return nil, err
			}
			wire = server
			return client, s.Attach(server)
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(b.Context(), "slot", "publication", false); err != nil {
		b.Fatal(err)
	}
	var writing sync.WaitGroup
	defer writing.Wait() // behind Close, at which the writer ends
	defer c.Close()
	frame := walsender.XLogData(1, make([]byte, 200))
	writing.Go(func() {
		for many := bytes.Repeat(frame, 1000); ; {
			if _, err := wire.Write(many); err != nil {
				return
			}
		}
	})
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if f, err := c.Receive(); err != nil || len(f.Data) != 200 {
			b.Fatal(len(f.Data), err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
