package kafka

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
)

// A client asks for its producer id as often as it must, until it has sent rows.
func TestClientStaysOneProducer(t *testing.T) {
	request := func(key uint16) []byte {
		b := binary.BigEndian.AppendUint32(nil, 4)
		return append(binary.BigEndian.AppendUint16(b, key), 0, 9)
	}
	for name, transactional := range map[string]bool{"at least once": false, "exactly once": true} {
		ours, theirs := net.Pipe()
		go func() {
			for b := make([]byte, 64); ; {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		}()
		shut := make(chan struct{})
		p := &producer{shut: func() { close(shut) }}
		if transactional {
			p.txn = &transactor{}
		}
		conn := &oneProducerConn{ours, p}
		for _, key := range []uint16{18, keyInitProducerID, keyInitProducerID, keyProduce, 3, keyProduce} {
			if _, err := conn.Write(request(key)); err != nil {
				t.Fatalf("%s: request %d: %v", name, key, err)
			}
		}
		_, err := conn.Write(request(keyInitProducerID))
		if transactional != (err == nil) || err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: another producer id after rows: %v", name, err)
		}
		if !transactional {
			<-shut
			if !p.failed.Load() {
				t.Error("the next leadership would go on with this client")
			}
		}
		_, _ = ours.Close(), theirs.Close()
	}
}
