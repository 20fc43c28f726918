package chaos

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// Messages are found however they are cut into reads, and answers belong to
// their requests, in whatever order they come.
func TestWireFindsMessages(t *testing.T) {
	request := func(api int16, id uint32, size int) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+size))
		b = binary.BigEndian.AppendUint16(b, uint16(api))
		b = binary.BigEndian.AppendUint16(b, 9)
		return append(binary.BigEndian.AppendUint32(b, id), make([]byte, size)...)
	}
	answer := func(id uint32, size int) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(4+size))
		return append(binary.BigEndian.AppendUint32(b, id), make([]byte, size)...)
	}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := &wire{}
		c := w.inspect(3)
		feed := func(d proxy.Direction, b []byte) bool {
			for len(b) > 0 {
				n := 1 + rng.IntN(len(b))
				if !c.Look(d, b[:n]) {
					return false
				}
				b = b[n:]
			}
			return true
		}
		var nodes []int
		note := func(pass bool) func(int) bool {
			return func(node int) bool { nodes = append(nodes, node); return pass }
		}
		asked := w.set(apiProduce, false, note(true))
		if !feed(proxy.Up, append(append(request(3, 1, 5), request(apiEndTransaction, 2, 0)...), request(apiProduce, 3, 70)...)) {
			t.Fatal("a request did not pass")
		}
		<-asked
		answered := w.set(apiEndTransaction, true, note(false))
		if !feed(proxy.Down, append(answer(3, 40), answer(1, 0)...)) {
			t.Fatal("an answer to something else did not pass")
		}
		if feed(proxy.Down, answer(2, 10)) {
			t.Fatal("the answer passed")
		}
		<-answered
		if len(nodes) != 2 || nodes[0] != 3 {
			t.Fatalf("sprung at nodes %v", nodes)
		}
	}
}
