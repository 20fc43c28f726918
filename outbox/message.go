package outbox

import (
	"context"
	"encoding/json"
	"fmt"
)

// Message is an event to be written.
type Message struct {
	// ID identifies the event. Zero: a new UUID of version 7. Give one to make
	// writing idempotent: an id that is there already is [ErrDuplicateID].
	ID ID

	// Topic on Kafka: 1 to 249 of a-z A-Z 0-9 . _ - and neither "." nor "..".
	Topic string

	// Key on Kafka: messages of one topic and key arrive in commit order. Nil:
	// no key, and no order. The empty key is a key; see [Key].
	Key *string

	// Type of the event, header type on Kafka. Empty: no such header.
	Type string

	// Payload is the value on Kafka:
	//
	//   - nil: none, a tombstone
	//   - []byte: these bytes, also if there are none (a nil []byte is an empty value)
	//   - json.RawMessage: this JSON text, byte for byte
	//   - anything else: what the writer's [Codec] makes of it, without one json.Marshal
	//
	// Only the untyped nil is a tombstone: a nil pointer is the JSON value null.
	Payload any

	// Headers on Kafka, beside those of the context (see [WithHeaders]) and of
	// the transaction (SET LOCAL outbox.headers, outbox.traceparent), over which
	// they win. Names "id", "type" and those that begin with "outrider-" are the
	// relay's.
	Headers Headers
}

// Headers are names and values. A string arrives as its text and nil as a null
// header; anything else arrives as its JSON text, json.RawMessage as what it
// holds. Postgres keeps JSON values of headers as jsonb: spaces and the order of
// keys inside them may change.
type Headers map[string]any

// Key returns a pointer to key, for Message.Key.
func Key(key string) *string {
	k := key // not &key, which go fix would put new(…) for, wherever this is called
	return &k
}

// Codec turns payloads into what is stored, for example Avro or Protobuf. It is
// called for payloads that are neither nil nor []byte nor json.RawMessage, in
// the order of the messages, from the goroutine that writes.
type Codec interface {
	// Encode sets m.Payload to a []byte or a json.RawMessage; it may change
	// m.Headers as well. m is the writer's own copy, headers included (never
	// nil), and must not be kept. The error arrives in an [*Error] of that message.
	Encode(ctx context.Context, m *Message) error
}

// CodecFunc is a function as a [Codec].
type CodecFunc func(ctx context.Context, m *Message) error

// Encode calls f.
func (f CodecFunc) Encode(ctx context.Context, m *Message) error { return f(ctx, m) }

// encode leaves nil, []byte or json.RawMessage as payload.
func (w *Writer) encode(ctx context.Context, m *Message) error {
	switch p := m.Payload.(type) {
	case nil, []byte, json.RawMessage:
		return nil
	case *json.RawMessage: // json.Marshal would take the spaces out
		if p != nil {
			m.Payload = *p
			return nil
		}
	}
	if w.Codec == nil {
		text, err := json.Marshal(m.Payload)
		m.Payload = json.RawMessage(text)
		return err
	}
	if err := w.Codec.Encode(ctx, m); err != nil {
		return err
	}
	switch m.Payload.(type) {
	case []byte, json.RawMessage:
		return nil
	}
	return fmt.Errorf("codec left a payload of type %T, want []byte or json.RawMessage", m.Payload)
}
