package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

// Events that are no rows: the view outbox.stream emits them as logical messages
// of one prefix. Their content is the version 1 and, as in an Insert, TupleData
// of the native columns, in their order (Postgres documentation, Logical
// Replication Message Formats).

const envelopeVersion = 1

// envelope is the layout of the content.
//
//nolint:gochecknoglobals // a table that nobody changes
var envelope = layout{
	at:    [fieldCount]int{0, 1, 2, 3, 4, 5, 6},
	types: [fieldCount]uint32{fieldID: oidUUID, fieldPayloadBytes: oidBytea, fieldHeaders: oidJSONB},
}

var errEnvelope = errors.New("logical message of the outbox that is no event")

// message publishes a logical message, if it is an event of our outbox. One that
// is outside of transactions is nobody's promise: only the view emits events.
func (s *stream) message(ctx context.Context, body []byte) error {
	if err := s.awaitRoom(ctx); err != nil {
		return err
	}
	m, err := pgoutput.ParseMessage(body)
	if err != nil {
		return err
	}
	if !m.Transactional || string(m.Prefix) != messagePrefix+s.relay.cfg.Schema {
		return nil
	}
	row, err := s.unwrap(m.Content)
	if err != nil { // who may emit messages may emit anything: it is kept, and refused as a row is
		row = s.stray(m.Content, err)
	}
	return s.event(ctx, row)
}

// unwrap reads the content of a message; its bytes stay where they are.
func (s *stream) unwrap(content []byte) (row, error) {
	if len(content) == 0 || content[0] != envelopeVersion {
		return row{}, fmt.Errorf("%w: it does not begin with version %d", errEnvelope, envelopeVersion)
	}
	cols, err := pgoutput.ParseTuple(content[1:], s.cols[:0])
	if err != nil {
		return row{}, fmt.Errorf("%w: %w", errEnvelope, err)
	}
	s.cols = cols
	row := row{layout: &envelope, cols: cols}
	if len(cols) != int(fieldCount) || cols[fieldTopic].Format != 't' {
		return row, fmt.Errorf("%w: %d columns", errEnvelope, len(cols))
	}
	return row, row.check()
}

// stray is a row for what cannot be read: its value is the content.
func (s *stream) stray(content []byte, err error) row {
	null := pgoutput.Column{Format: 'n'}
	s.cols = append(s.cols[:0], null, pgoutput.Column{Format: 't'}, null, null, null, pgoutput.Column{Format: 'b', Data: content}, null)
	return row{layout: &envelope, cols: s.cols, bad: &unfit{cause: err}}
}
