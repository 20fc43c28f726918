package relay

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// notice keeps what the server says beside the stream: the only sign of a slot
// that waits for a standby, and of changes that Postgres 18 leaves out because
// the publication was missing when they were made.
func (s *stream) notice(f replication.Frame) error {
	n := f.Notice
	s.relay.metrics.notices.WithLabelValues(n.Code).Inc()
	s.relay.log.Log(context.Background(), noticeLevel(n.SeverityUnlocalized), "notice from the replication connection",
		"sqlstate", n.Code, "severity", n.Severity, "notice", firstLine(n.Message), "detail", firstLine(n.Detail))
	if n.Routine == "StandbySlotsHaveCaughtup" {
		s.withheld(firstLine(n.Message))
	}
	if n.Routine == "LoadPublications" { // the C function; the text may be translated
		return s.relay.publicationError(fmt.Errorf("%s: %s", n.Code, firstLine(n.Message)))
	}
	return nil
}

func noticeLevel(severity string) slog.Level {
	if severity == "WARNING" {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// streamError sorts what ended the stream. Nothing was confirmed past it.
func (r *Relay) streamError(err error) error {
	if sqlState(err) == stateUndefinedObject {
		return r.publicationError(err)
	}
	return fmt.Errorf("stream: %w", err)
}

// publicationError asks whether the publication is there now. If it is not, the
// next session halts with the way to create it; if it is, it was missing when
// rows were written, and those cannot be decoded any more.
func (r *Relay) publicationError(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	db, dbErr := r.openDatabase(ctx)
	if dbErr != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer db.close()
	if slot, slotErr := db.slot(ctx); slotErr != nil || !slot.exists {
		return fmt.Errorf("stream: %w", err) // 42704 may also mean the slot; the next session sees to it
	}
	server, dbErr := db.server(ctx)
	if dbErr == nil {
		dbErr = db.publication(ctx, server.version)
	}
	if dbErr != nil {
		return dbErr
	}
	r.log.Error("rows were written while the publication was not there; they are published from the table", "error", firstLine(err.Error()))
	return fmt.Errorf("%w: %w", errLeftOut, err)
}
