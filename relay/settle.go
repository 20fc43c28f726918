package relay

// settler is told what became of a message, once.
type settler interface{ settle(m *Message, err error) }

type settleFunc func(error)

func (f settleFunc) settle(_ *Message, err error) { f(err) }

// NewMessage completes m for tests and benchmarks of sinks: no slot stands
// behind it, and settle is called when the sink settles it.
func NewMessage(m *Message, own []Header, settle func(error)) *Message {
	m.own, m.owner = own, settleFunc(settle)
	m.source = []byte("1.1.test.1")
	m.texts = appendPosition(nil, m.Position)
	m.texts = m.CommittedAt.UTC().AppendFormat(m.texts, timestampFormat)
	return m
}

// timestampFormat is RFC 3339 with the microseconds that Postgres has.
const timestampFormat = "2006-01-02T15:04:05.000000Z07:00"

// positionLen is the length of a Position as text.
const positionLen = 16 + 1 + 16

// appendPosition appends what Position.String returns.
func appendPosition(b []byte, p Position) []byte {
	b = appendHex(b, uint64(p.LSN))
	b = append(b, '.')
	return appendHex(b, p.Ordinal)
}

func appendHex(b []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789ABCDEF"[v>>shift&0xf])
	}
	return b
}
