package outbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/outrider-cdc/outrider/outbox/internal/statement"
)

// batch is what one call writes.
type batch struct {
	rows  []statement.Row
	ids   []ID
	given []int // messages that brought their id
}

// prepare refuses what the table would refuse.
func (w *Writer) prepare(ctx context.Context, msgs []Message) (*batch, error) {
	b := &batch{rows: make([]statement.Row, len(msgs)), ids: make([]ID, len(msgs))}
	defaults := w.defaults(ctx)
	var sequence idSequence
	for i, m := range msgs {
		if m.ID.IsZero() {
			id, err := sequence.next()
			if err != nil {
				return nil, err
			}
			m.ID = id
		} else {
			b.given = append(b.given, i)
		}
		b.ids[i] = m.ID
		m.Headers = merge(defaults, m.Headers)
		row, field, err := w.row(ctx, &m)
		if err != nil {
			return nil, &Error{Index: i, Field: field, Err: err}
		}
		b.rows[i] = row
	}
	if err := b.unique(); err != nil {
		return nil, err
	}
	return b, nil
}

// unique refuses an id that was given twice.
func (b *batch) unique() error {
	if len(b.given) < 2 {
		return nil
	}
	seen := make(map[ID]int, len(b.given))
	for _, i := range b.given {
		if before, ok := seen[b.ids[i]]; ok {
			return &Error{Index: i, Field: "ID", Err: fmt.Errorf("%w: as message %d", ErrDuplicateID, before)}
		}
		seen[b.ids[i]] = i
	}
	return nil
}

// row turns m into what is stored. With an error it tells the field.
func (w *Writer) row(ctx context.Context, m *Message) (row statement.Row, field string, err error) {
	if err := w.encode(ctx, m); err != nil {
		return row, "Payload", fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if !validTopic(m.Topic) {
		return row, "Topic", ErrTopic
	}
	row = statement.Row{ID: m.ID.String(), Topic: m.Topic, Key: m.Key}
	size := len(m.Type)
	if m.Key != nil {
		size += len(*m.Key)
		if err := checkText(*m.Key); err != nil {
			return row, "Key", err
		}
	}
	if m.Type != "" {
		row.Type = &m.Type
		if err := checkText(m.Type); err != nil {
			return row, "Type", err
		}
	}
	headers, octets, err := m.Headers.text()
	if err != nil {
		return row, "Headers", err
	}
	if headers != "" {
		row.Headers = &headers
	}
	size += octets
	switch p := m.Payload.(type) {
	case []byte:
		size += len(p)
	case json.RawMessage:
		size += len(p)
	}
	if limit := w.maxBytes(); size > limit { // before the payload is copied
		return row, "", &SizeError{Size: size, Limit: limit}
	}
	switch p := m.Payload.(type) {
	case []byte:
		text := base64.StdEncoding.EncodeToString(p)
		row.Base64 = &text
	case json.RawMessage:
		if !json.Valid(p) || !utf8.Valid(p) {
			return row, "Payload", fmt.Errorf("%w: %w", ErrPayload, errNotJSON)
		}
		text := string(p)
		row.JSON = &text
	}
	return row, "", nil
}

var errNotJSON = errors.New("not valid JSON in UTF-8")

// validTopic is constraint topic_name.
func validTopic(topic string) bool {
	if len(topic) < 1 || len(topic) > 249 || topic == "." || topic == ".." {
		return false
	}
	for i := range len(topic) {
		switch c := topic[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// checkText refuses what a column of type text cannot hold.
func checkText(s string) error {
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return ErrText
	}
	return nil
}
