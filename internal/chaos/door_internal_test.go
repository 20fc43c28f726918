package chaos

import (
	"io"
	"net"
	"testing"
	"time"
)

// speaker is a server that says its name to whoever connects, and hangs on.
func speaker(t *testing.T, name string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return l.Addr().String()
}

func TestDoorLeadsToOneServerAtATime(t *testing.T) {
	d, err := openDoor(speaker(t, "old"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	hear := func() (net.Conn, string) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", d.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 3)
		n, _ := io.ReadFull(c, b)
		return c, string(b[:n])
	}
	before, said := hear()
	if said != "old" {
		t.Fatalf("heard %q", said)
	}
	d.lead("")
	if _, err := before.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the closed door")
	}
	if _, said := hear(); said != "" {
		t.Errorf("the closed door says %q", said)
	}
	d.lead(speaker(t, "new"))
	if _, said := hear(); said != "new" {
		t.Errorf("heard %q", said)
	}
}
