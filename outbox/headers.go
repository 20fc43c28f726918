package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

type headersKey struct{}

// WithHeaders returns a context with which every message is written with these
// headers, beside those that ctx has already. A message's own headers win.
func WithHeaders(ctx context.Context, headers map[string]string) context.Context {
	merged := map[string]string{}
	for name, value := range contextHeaders(ctx) {
		merged[name] = value
	}
	for name, value := range headers {
		merged[name] = value
	}
	return context.WithValue(ctx, headersKey{}, merged)
}

func contextHeaders(ctx context.Context) map[string]string {
	headers, _ := ctx.Value(headersKey{}).(map[string]string)
	return headers
}

// defaults are the headers that every message of one call has.
func (w *Writer) defaults(ctx context.Context) map[string]string {
	given := contextHeaders(ctx)
	if w.ContextHeaders == nil {
		return given
	}
	merged := map[string]string{}
	for name, value := range w.ContextHeaders(ctx) {
		merged[name] = value
	}
	for name, value := range given {
		merged[name] = value
	}
	return merged
}

func merge(defaults map[string]string, own Headers) Headers {
	merged := make(Headers, len(defaults)+len(own))
	for name, value := range defaults {
		merged[name] = value
	}
	for name, value := range own {
		merged[name] = value
	}
	return merged
}

// text returns h as a JSON object, "" without headers, and the octets that the
// object has as jsonb, which is how the table counts.
func (h Headers) text() (text string, octets int, err error) {
	if len(h) == 0 {
		return "", 0, nil
	}
	object := make(map[string]json.RawMessage, len(h))
	octets = len("{}") + len(", ")*(len(h)-1)
	for name, value := range h {
		if name == "id" || name == "type" || strings.HasPrefix(name, "outrider-") {
			return "", 0, fmt.Errorf("%w: %q", ErrReservedHeader, name)
		}
		if err := checkText(name); err != nil {
			return "", 0, fmt.Errorf("name %q: %w", name, err)
		}
		encoded, n, err := headerValue(value)
		if err != nil {
			return "", 0, fmt.Errorf("%q: %w", name, err)
		}
		object[name] = encoded
		octets += jsonbString(name) + len(": ") + n
	}
	encoded, err := json.Marshal(object)
	return string(encoded), octets, err
}

func headerValue(value any) (text json.RawMessage, octets int, err error) {
	switch v := value.(type) {
	case string:
		if err := checkText(v); err != nil {
			return nil, 0, err
		}
		text, err := json.Marshal(v)
		return text, jsonbString(v), err
	case []byte: // json.Marshal would make base64 of it, which nobody expects of a header
		return nil, 0, fmt.Errorf("%w: a header is text or JSON, convert the []byte to a string", ErrHeader)
	case json.RawMessage:
		text = v
	default:
		if text, err = json.Marshal(v); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrHeader, err)
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var decoded any
	if err := d.Decode(&decoded); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("%w: more than one JSON value", ErrHeader)
	}
	octets, err = jsonbOctets(decoded)
	return text, octets, err
}

// jsonbOctets is octet_length(jsonb::text). Numbers with an exponent are counted
// as they are written, while Postgres writes them out; there the table decides.
func jsonbOctets(value any) (int, error) {
	switch v := value.(type) {
	case nil:
		return len("null"), nil
	case bool:
		if v {
			return len("true"), nil
		}
		return len("false"), nil
	case json.Number:
		return len(v), nil
	case string:
		return jsonbString(v), checkText(v)
	case []any:
		n := len("[]") + len(", ")*max(len(v)-1, 0)
		for _, element := range v {
			octets, err := jsonbOctets(element)
			if err != nil {
				return 0, err
			}
			n += octets
		}
		return n, nil
	case map[string]any:
		n := len("{}") + len(", ")*max(len(v)-1, 0)
		for name, element := range v {
			octets, err := jsonbOctets(element)
			if err != nil {
				return 0, err
			}
			n += jsonbString(name) + len(": ") + octets
			if err := checkText(name); err != nil {
				return 0, err
			}
		}
		return n, nil
	}
	return 0, fmt.Errorf("%w: %T", ErrHeader, value)
}

// jsonbString is the length of s as Postgres prints it: short escapes where JSON
// has them, \u00XX for other control characters, everything else as it is.
func jsonbString(s string) int {
	n := len(s) + len(`""`)
	for i := range len(s) {
		switch c := s[i]; {
		case strings.IndexByte("\"\\\b\f\n\r\t", c) >= 0:
			n++
		case c < ' ':
			n += len(`\u0000`) - 1
		}
	}
	return n
}
