package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// A Recorder takes the place of the transaction, so that the examples run without a database.
func Example() {
	ctx, tx := context.Background(), &outboxtest.Recorder{}

	ids, err := outbox.Write(ctx, tx,
		outbox.Message{Topic: "orders", Key: outbox.Key("42"), Type: "OrderPaid", Payload: map[string]any{"order": 42}},
		outbox.Message{Topic: "carts", Key: outbox.Key("7")}, // no payload: a tombstone
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(ids), "messages")
	for _, m := range tx.Messages() {
		fmt.Printf("%s %s %T\n", m.Topic, *m.Key, m.Payload)
	}
	// Output:
	// 2 messages
	// orders 42 json.RawMessage
	// carts 7 <nil>
}

func ExampleError() {
	ctx, tx := context.Background(), &outboxtest.Recorder{}

	_, err := outbox.Write(ctx, tx,
		outbox.Message{Topic: "orders"},
		outbox.Message{Topic: "paid orders"},
	)
	var refused *outbox.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Index, refused.Field, errors.Is(err, outbox.ErrTopic))
	}
	fmt.Println(err)
	// Output:
	// 1 Topic true
	// outbox: message 1: Topic: a topic has 1 to 249 of a-z A-Z 0-9 . _ - and is neither "." nor ".."
}

func ExampleWithHeaders() {
	ctx, tx := context.Background(), &outboxtest.Recorder{}

	ctx = outbox.WithHeaders(ctx, map[string]string{"tenant": "acme"})
	if _, err := outbox.Write(ctx, tx, outbox.Message{Topic: "orders", Headers: outbox.Headers{"attempt": 1}}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(tx.Messages()[0].Headers["tenant"])
	// Output: acme
}

func ExampleCodec() {
	ctx, tx := context.Background(), &outboxtest.Recorder{}

	w := outbox.Writer{Codec: outbox.CodecFunc(func(_ context.Context, m *outbox.Message) error {
		wrapped, err := json.Marshal(map[string]any{"version": 1, "data": m.Payload})
		m.Payload = json.RawMessage(wrapped)
		m.Headers["content-type"] = "application/json"
		return err
	})}
	if _, err := w.Write(ctx, tx, outbox.Message{Topic: "orders", Payload: 42}); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%s\n", tx.Messages()[0].Payload)
	// Output: {"data":42,"version":1}
}
