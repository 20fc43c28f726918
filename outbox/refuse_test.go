package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

func TestRefusedBeforeTheRoundTrip(t *testing.T) {
	id, err := outbox.NewID()
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("codec failed")
	for name, c := range map[string]struct {
		bad   outbox.Message
		field string
		want  error
		codec outbox.CodecFunc
	}{
		"no topic":                {bad: outbox.Message{}, field: "Topic", want: outbox.ErrTopic},
		"topic with a space":      {bad: outbox.Message{Topic: "a b"}, field: "Topic", want: outbox.ErrTopic},
		"topic with a newline":    {bad: outbox.Message{Topic: "a\n"}, field: "Topic", want: outbox.ErrTopic},
		"topic ..":                {bad: outbox.Message{Topic: ".."}, field: "Topic", want: outbox.ErrTopic},
		"topic of 250":            {bad: outbox.Message{Topic: strings.Repeat("a", 250)}, field: "Topic", want: outbox.ErrTopic},
		"topic beyond ASCII":      {bad: outbox.Message{Topic: "ä"}, field: "Topic", want: outbox.ErrTopic},
		"key with NUL":            {bad: outbox.Message{Topic: "t", Key: outbox.Key("a\x00")}, field: "Key", want: outbox.ErrText},
		"key that is not UTF-8":   {bad: outbox.Message{Topic: "t", Key: outbox.Key("\xff")}, field: "Key", want: outbox.ErrText},
		"type that is not UTF-8":  {bad: outbox.Message{Topic: "t", Type: "\xff"}, field: "Type", want: outbox.ErrText},
		"payload is no JSON":      {bad: outbox.Message{Topic: "t", Payload: json.RawMessage("{")}, field: "Payload", want: outbox.ErrPayload},
		"payload is empty JSON":   {bad: outbox.Message{Topic: "t", Payload: json.RawMessage(nil)}, field: "Payload", want: outbox.ErrPayload},
		"payload is two values":   {bad: outbox.Message{Topic: "t", Payload: json.RawMessage("1 2")}, field: "Payload", want: outbox.ErrPayload},
		"payload is not UTF-8":    {bad: outbox.Message{Topic: "t", Payload: json.RawMessage("\"\xff\"")}, field: "Payload", want: outbox.ErrPayload},
		"payload of no JSON kind": {bad: outbox.Message{Topic: "t", Payload: make(chan int)}, field: "Payload", want: outbox.ErrPayload},
		"codec fails": {
			bad: outbox.Message{Topic: "t", Payload: 1}, field: "Payload", want: failed,
			codec: func(context.Context, *outbox.Message) error { return failed },
		},
		"codec does nothing": {
			bad: outbox.Message{Topic: "t", Payload: 1}, field: "Payload", want: outbox.ErrPayload,
			codec: func(context.Context, *outbox.Message) error { return nil },
		},
		"header id":              {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"id": "1"}}, field: "Headers", want: outbox.ErrReservedHeader},
		"header type":            {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"type": nil}}, field: "Headers", want: outbox.ErrReservedHeader},
		"header outrider-x":      {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"outrider-x": 1}}, field: "Headers", want: outbox.ErrReservedHeader},
		"header of bytes":        {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": []byte("x")}}, field: "Headers", want: outbox.ErrHeader},
		"header of no JSON kind": {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": math.NaN()}}, field: "Headers", want: outbox.ErrHeader},
		"header is no JSON":      {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": json.RawMessage("[")}}, field: "Headers", want: outbox.ErrHeader},
		"header is two values":   {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": json.RawMessage("1 2")}}, field: "Headers", want: outbox.ErrHeader},
		"header with NUL":        {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": "\x00"}}, field: "Headers", want: outbox.ErrText},
		"header with NUL inside": {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"a": []string{"\x00"}}}, field: "Headers", want: outbox.ErrText},
		"header name with NUL":   {bad: outbox.Message{Topic: "t", Headers: outbox.Headers{"\x00": "a"}}, field: "Headers", want: outbox.ErrText},
		"id given twice":         {bad: outbox.Message{ID: id, Topic: "t"}, field: "ID", want: outbox.ErrDuplicateID},
	} {
		t.Run(name, func(t *testing.T) {
			w := outbox.Writer{}
			if c.codec != nil {
				w.Codec = c.codec
			}
			var r outboxtest.Recorder
			_, err := w.Write(context.Background(), &r, outbox.Message{ID: id, Topic: "t"}, outbox.Message{Topic: "t"}, c.bad)
			var refused *outbox.Error
			if !errors.As(err, &refused) || refused.Index != 2 || refused.Field != c.field || !errors.Is(err, c.want) {
				t.Errorf("error is %v, want field %s of message 2 and %v", err, c.field, c.want)
			}
			outboxtest.Require(t, r.Messages())
		})
	}
}

// The kinds of names that look reserved and are not.
func TestHeadersThatAreNotReserved(t *testing.T) {
	var r outboxtest.Recorder
	own := outbox.Headers{"ID": "1", "id.": "1", "id\n": "1", "types": "1", "outrider": "1", "Outrider-x": "1", "": "1"}
	if _, err := outbox.Write(context.Background(), &r, outbox.Message{Topic: "t", Headers: own}); err != nil {
		t.Fatal(err)
	}
	outboxtest.Require(t, r.Messages(), outboxtest.Match{Headers: own})
}

func TestSizeIsPayloadKeyTypeAndHeaders(t *testing.T) {
	message := outbox.Message{
		Topic: "t", Key: outbox.Key("ä"), Type: "xyz", Payload: []byte("12345"),
		Headers: outbox.Headers{"a": "\"\n\x01", "b": nil, "c": []any{1, true, map[string]any{"d": false}}},
	}
	headers := `{"a": "\"\n\u0001", "b": null, "c": [1, true, {"d": false}]}` // as Postgres prints jsonb
	size := len("ä") + len("xyz") + len("12345") + len(headers)
	for limit, fits := range map[int]bool{size: true, size - 1: false} {
		var r outboxtest.Recorder
		w := outbox.Writer{MaxBytes: limit}
		_, err := w.Write(context.Background(), &r, outbox.Message{Topic: "t"}, message)
		if fits && err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
		var where *outbox.Error
		var tooLarge *outbox.SizeError
		if !fits && (!errors.As(err, &tooLarge) || tooLarge.Size != size || tooLarge.Limit != limit || !errors.As(err, &where) || where.Index != 1) {
			t.Errorf("limit %d: %v, want message 1 and %d octets", limit, err, size)
		}
	}
}

func TestErrorsShowNoContent(t *testing.T) {
	const secret = "secret"
	for _, bad := range []outbox.Message{
		{Topic: "t", Key: outbox.Key(secret + "\xff")},
		{Topic: "t", Payload: json.RawMessage(secret)},
		{Topic: "t", Headers: outbox.Headers{"a": secret + "\x00"}},
	} {
		_, err := outbox.Write(context.Background(), &outboxtest.Recorder{}, bad)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("error is %v", err)
		}
	}
}
