package relay

import "sync/atomic"

type settledOnce = atomic.Bool

// settler is told what became of a message.
type settler interface{ settle(m *Message, err error) }

// stamp holds the headers that all messages of one transaction share.
type stamp struct{ source, committedAt []byte }

type settleFunc func(error)

func (f settleFunc) settle(_ *Message, err error) { f(err) }

// NewMessage returns a message that no slot stands behind, for tests and
// benchmarks of sinks: settle is called when the sink settles it.
func NewMessage(m *Message, own []Header, settle func(error)) *Message {
	m.own, m.owner = own, settleFunc(settle)
	m.position = []byte(m.Position.String())
	m.stamped = &stamp{source: []byte("1.1.test.1"), committedAt: []byte(m.CommittedAt.UTC().Format(timestampFormat))}
	return m
}

// timestampFormat is RFC 3339 with the microseconds that Postgres has.
const timestampFormat = "2006-01-02T15:04:05.000000Z07:00"
