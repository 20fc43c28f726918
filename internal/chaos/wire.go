package chaos

import (
	"encoding/binary"
	"sync"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// API keys of the Kafka protocol.
const (
	apiProduce        = 0
	apiEndTransaction = 26
)

// wire listens to the protocol between relays and Kafka, so that a fault can
// strike at the moment of a certain request or answer.
type wire struct {
	mu   sync.Mutex
	trap *trap // nil: nothing is waited for
}

// trap is something to do when a request passes, or its answer comes.
type trap struct {
	api    int16
	answer bool
	do     func(node int) (pass bool) // called by the goroutine that carries the bytes, before they pass
	sprung chan struct{}
}

// set waits for the next such message. What it returns is closed when do has returned.
func (w *wire) set(api int16, answer bool, do func(node int) (pass bool)) (sprung <-chan struct{}) {
	t := &trap{api: api, answer: answer, do: do, sprung: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trap = t
	return t.sprung
}

// clear forgets what was waited for.
func (w *wire) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trap = nil
}

// saw reports whether the message may pass.
func (w *wire) saw(node int, api int16, answer bool) bool {
	w.mu.Lock()
	t := w.trap
	if t == nil || t.api != api || t.answer != answer {
		w.mu.Unlock()
		return true
	}
	w.trap = nil
	w.mu.Unlock()
	defer close(t.sprung)
	return t.do(node)
}

// inspect returns what looks at one connection to a node.
func (w *wire) inspect(node int) proxy.Inspector {
	return &conversation{wire: w, node: node, asked: map[uint32]int16{}}
}

// conversation is one connection. Each message is its length in four bytes and
// that many bytes; a request begins with api key, version and correlation id, an
// answer with the correlation id (Kafka protocol guide).
type conversation struct {
	wire     *wire
	node     int
	up, down frames

	mu    sync.Mutex
	asked map[uint32]int16 // api keys of what is not answered, by correlation id
}

const (
	requestHead = 4 + 2 + 2 + 4
	answerHead  = 4 + 4
)

// Look implements [proxy.Inspector].
func (c *conversation) Look(d proxy.Direction, b []byte) bool {
	pass := true
	if d == proxy.Up {
		c.up.read(b, requestHead, func(head []byte) {
			api, id := int16(binary.BigEndian.Uint16(head[4:])), binary.BigEndian.Uint32(head[8:])
			c.mu.Lock()
			c.asked[id] = api
			c.mu.Unlock()
			pass = c.wire.saw(c.node, api, false) && pass
		})
		return pass
	}
	c.down.read(b, answerHead, func(head []byte) {
		id := binary.BigEndian.Uint32(head[4:])
		c.mu.Lock()
		api, ok := c.asked[id]
		delete(c.asked, id)
		c.mu.Unlock()
		if ok {
			pass = c.wire.saw(c.node, api, true) && pass
		}
	})
	return pass
}

// frames finds the heads of messages in a stream of bytes.
type frames struct {
	head []byte
	rest int // of the message whose head was seen
}

func (f *frames) read(b []byte, size int, seen func(head []byte)) {
	for len(b) > 0 {
		if f.rest > 0 {
			n := min(f.rest, len(b))
			f.rest -= n
			b = b[n:]
			continue
		}
		n := min(size-len(f.head), len(b))
		f.head = append(f.head, b[:n]...)
		b = b[n:]
		if len(f.head) == size {
			f.rest = max(0, 4+int(binary.BigEndian.Uint32(f.head))-size)
			seen(f.head)
			f.head = f.head[:0]
		}
	}
}
