package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// In exactly-once a sink stores, in one transaction with the messages, how far
// they go: its checkpoint is ahead of everything that Postgres was told, and
// only it says what is on Kafka after a crash. The relay goes on right behind
// it, in the midst of a transaction if need be.

// exactlyOnce reports whether the configuration asks for it.
func (r *Relay) exactlyOnce() bool { return r.cfg.Delivery == ExactlyOnce }

func (r *Relay) delivery() string {
	if r.exactlyOnce() {
		return ExactlyOnce
	}
	return AtLeastOnce
}

// peekLimit is how long a candidate waits for the checkpoint before it lets others try.
const peekLimit = 10 * time.Second

// peek compares the progress row with the checkpoint before anything is taken:
// to fence whoever publishes under our name is right only if this database is
// not older than what was published from it, as a clone beside production is.
// The row is written before anything is published, so on one timeline it is
// never behind a checkpoint. A standby that was promoted may be.
func (r *Relay) peek(ctx context.Context, c *candidacy) error {
	if !r.exactlyOnce() || r.ledLast(c) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, peekLimit)
	defer cancel()
	t := r.sink.(Transactional) //nolint:forcetypeassert // New has looked
	cp, err := t.Checkpoint(ctx, Source{
		SystemID: c.here.systemID, Timeline: c.here.timeline, Slot: r.cfg.Slot, Delivery: ExactlyOnce, Report: r.report, Lease: func() bool { return true },
	})
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	if cp.Phase == "" || cp.SystemID != c.here.systemID {
		return nil
	}
	c.published = cp.Generation
	if err := r.judgeTimeline(c, cp); err != nil {
		return err
	}
	row := c.row
	switch {
	case row == nil || cp.Timeline != c.here.timeline:
	case cp.Generation > row.generation, cp.Generation == row.generation && (cp.Epoch > row.epoch || cp.Epoch == row.epoch && cp.WriteSeq > row.writeSeq),
		cp.Generation == row.generation && cp.Phase == CheckpointStreaming && row.phase != phaseStreaming:
		return halt("database_rewound", fmt.Errorf("the database is older than what was published from it: the checkpoint on Kafka is of generation %d, epoch %d, write %d, and the progress row of %d, %d, %d; it was set back, or is a copy",
			cp.Generation, cp.Epoch, cp.WriteSeq, row.generation, row.epoch, row.writeSeq),
			Hint{Say: "if this is a copy, correct OUTRIDER_DATABASE_URL or take another OUTRIDER_NAME"},
			Hint{
				Say: "if the database was set back on purpose, go on with what it has; what was published and is not in it stays on Kafka",
				SQL: fmt.Sprintf("UPDATE %s SET generation = %d WHERE slot = %s;", (&database{relay: r}).relays(), cp.Generation+1, literal(r.cfg.Slot)),
			})
	}
	return nil
}

// ledLast reports whether this process was the last to lead, on this server as
// it is: then it cannot be older than what was published, and the slot is taken
// back at once, although Kafka may be away. What Begin returns is judged as ever.
func (r *Relay) ledLast(c *candidacy) bool {
	return c.row != nil && r.history.epoch != 0 && c.row.epoch == r.history.epoch && r.started == c.server.started &&
		r.former.systemID == c.here.systemID && r.former.timeline == c.here.timeline
}

// counts reports whether a checkpoint speaks of positions that this leadership
// goes on from. One of another generation does not: the row knows better what
// was published by then.
func (c *candidacy) counts(cp Checkpoint) bool {
	return cp.Phase != "" && c.row.delivery == ExactlyOnce && cp.Generation == c.row.generation && cp.SystemID == c.here.systemID
}

// judgeTimeline refuses a server whose log does not go on from the one that
// was last published from: an old primary that came back, or a standby that
// left the line earlier than another that was promoted. The checkpoint knows of
// that one even if neither the row nor this process does. Between two branches
// positions do not compare.
func (r *Relay) judgeTimeline(c *candidacy, cp Checkpoint) error {
	if c.row != nil && c.row.generation > cp.Generation || c.here.descends(here{cp.SystemID, cp.Timeline, cp.History}) {
		return nil
	}
	return &waitError{"timeline", &Halt{
		Reason: "timeline",
		Err: fmt.Errorf("the server is on timeline %d, which does not go on from timeline %d that was last published from: it looks like a primary that was replaced",
			c.here.timeline, cp.Timeline),
		Hints: []Hint{
			{Say: "let OUTRIDER_DATABASE_URL lead to the primary"},
			r.newGeneration(c, cp.Generation+1),
		},
	}}
}

// newGeneration is the way to go on from a server as it is. Without a progress
// row it is a first start, which publishes what stands in the table.
func (r *Relay) newGeneration(c *candidacy, generation int64) Hint {
	relays, slot := (&database{relay: r}).relays(), literal(r.cfg.Slot)
	if c.row == nil {
		return Hint{
			Say: "if this server is the right one, publish what its table holds, under a new generation; what was published from the other stays on Kafka, and what both have comes twice",
			SQL: fmt.Sprintf("INSERT INTO %s (slot, contract, system_id, timeline, history, phase, generation) VALUES (%s, %d, %s, %d, %s, 'creating', %d);",
				relays, slot, contract, literal(c.here.systemID), c.here.timeline, literal(c.here.history), generation),
		}
	}
	return Hint{
		Say: "if this server is the right one, go on with what it has, under a new generation; what was published from the other stays on Kafka, and what both have comes twice from the last confirmed transaction on",
		SQL: fmt.Sprintf("UPDATE %s SET generation = %d WHERE slot = %s;", relays, generation, slot),
	}
}

// judgeCheckpoint looks at the checkpoint that is final, because everybody else is fenced.
func (r *Relay) judgeCheckpoint(c *candidacy, cp Checkpoint, l leadership) error {
	if err := r.checkpointLost(c, cp); err != nil || !c.counts(cp) {
		return err
	}
	if err := r.judgeTimeline(c, cp); err != nil { // it may be newer than the one that peek saw
		return err
	}
	switch {
	case cp.Timeline == c.here.timeline && cp.Epoch >= l.epoch:
		return errors.New("the checkpoint on Kafka is of a later leadership than this one: somebody leads on a copy of the database")
	case cp.Phase == CheckpointStreaming && cp.Options != r.optionsHash() && cp.Position.LSN >= l.confirmed: // below, no transaction comes in part
		return halt("options_changed", errors.New("publication or table have other names, or the relay another version, than when the last rows were published: their numbers within a transaction mean nothing now"),
			Hint{Say: "run what ran before until everything is published, stop it, and change publication, table or version then"},
			r.newSlot())
	}
	return nil
}

// checkpointLost halts where Kafka knows less of what was published than the
// progress row: the topic of checkpoints was deleted, emptied, set back or cut
// by an unclean election. To go on from the row would repeat what was published
// since it was written, without a word.
func (r *Relay) checkpointLost(c *candidacy, cp Checkpoint) error {
	generation, at, ok := parseReached(c.row.position)
	if !ok || c.row.delivery != ExactlyOnce || generation != c.row.generation || !r.exactlyOnce() {
		return nil
	}
	found := "the topic of checkpoints on Kafka has none"
	switch {
	case cp.Phase == "":
	case cp.Generation < generation:
		found = fmt.Sprintf("the checkpoint on Kafka is of generation %d", cp.Generation)
	case cp.Generation == generation && cp.Position.before(at):
		found = fmt.Sprintf("the checkpoint on Kafka ends at %s", cp.Position)
	default:
		return nil
	}
	return halt("checkpoint_lost", fmt.Errorf("rows were published up to position %s of generation %d, and %s: the topic was deleted, emptied or set back", at, generation, found),
		Hint{
			Say: "go on from the last confirmed transaction, under a new generation: nothing is lost, and what was published after it (about a second, or a transaction that was under way) comes twice",
			SQL: fmt.Sprintf("UPDATE %s SET generation = %d WHERE slot = %s;", (&database{relay: r}).relays(), generation+1, literal(r.cfg.Slot)),
		},
		Hint{Say: "or stop the relay and restore the topic"})
}

// reached is the newest row that the sink says is durable. The progress row
// keeps it, so that a checkpoint that knows less can be told from one that
// there never was. Any goroutine.
type reached struct {
	lsn  atomic.Uint64 // of rows of the stream
	base atomic.Uint64 // of rows of the backlog, with the seq
	seq  atomic.Uint64
}

func (r *reached) note(m *Message) {
	if m.Cursor == 0 {
		raise(&r.lsn, uint64(m.Position.LSN))
		return
	}
	raise(&r.base, uint64(m.Position.LSN))
	raise(&r.seq, m.Position.Ordinal)
}

func raise(to *atomic.Uint64, v uint64) {
	for {
		have := to.Load()
		if have >= v || to.CompareAndSwap(have, v) {
			return
		}
	}
}

// position is at or below every checkpoint from now on. All of the backlog lies
// below what is streamed.
func (r *reached) position() Position {
	if lsn := r.lsn.Load(); lsn > 0 {
		return Position{LSN: LSN(lsn)}
	}
	seq := r.seq.Load() // before base, which is noted first
	return Position{LSN(r.base.Load()), seq}
}

// position is the text for the progress row; nil: nothing new.
func (p *progress) position() *string {
	at := p.stream.flight.reached.position()
	if at == (Position{}) {
		return nil
	}
	return new(fmt.Sprintf("%d:%s", p.lead.generation, at))
}

// parseReached reads what [progress.position] wrote.
func parseReached(text string) (generation int64, at Position, ok bool) {
	n, err := fmt.Sscanf(text, "%d:%X.%X", &generation, (*uint64)(&at.LSN), &at.Ordinal)
	return generation, at, err == nil && n == 3
}

// resume lets the backlog go on behind the checkpoint.
func (d *debt) resume(c *candidacy, cp Checkpoint) {
	if c.counts(cp) && cp.Phase == CheckpointBacklog && cp.Cursor > d.row.cursor {
		d.row.cursor = cp.Cursor
		d.note(cp.Cursor, false)
	}
}

// resume moves the ledger behind the checkpoint. What the stream brings again
// up to there is on Kafka. On another timeline only what lies before the fork
// is still true; the rest are phantoms, which the new primary never had.
func (s *stream) resume(c *candidacy, cp Checkpoint) {
	if !c.counts(cp) || cp.Phase != CheckpointStreaming {
		return
	}
	r := s.relay
	at := cp.Position
	if cp.Timeline != c.here.timeline {
		if left, ok := c.here.leftAt(cp.Timeline); ok && at.LSN >= left {
			r.log.Warn("events were published that the new primary does not have", "published_to", at.String(), "fork", left.String())
			r.ledger.settled = max(r.ledger.settled, left)
			return
		}
	}
	if at.LSN < r.ledger.settled {
		return
	}
	r.ledger.settled = at.LSN
	r.ledger.replay = []replayed{{first: at.LSN, final: at.LSN, due: true, parts: []part{{from: 0, to: at.Ordinal + 1}}}}
	s.last = lastRow{position: at, id: []byte(cp.LastID)}
}

// lastRow is the row at the checkpoint. Another row in its place would mean
// that the same WAL is decoded to other rows than before.
type lastRow struct {
	position Position
	id       []byte
}

func (s *stream) checkLast(ordinal uint64, row row) error {
	if s.last.id == nil || s.commitLSN != s.last.position.LSN || ordinal != s.last.position.Ordinal {
		return nil
	}
	if id := row.idText(); !bytes.Equal([]byte(id), s.last.id) {
		return s.relay.replayDiffers(fmt.Errorf("row %s stands at position %s, where %s was published from", id, s.last.position, s.last.id))
	}
	s.last.id = nil
	return nil
}

// replayError turns the ledger's complaint into a halt where rows would be left
// out or repeated; at-least-once just sends the transaction again.
func (r *Relay) replayError(err error) error {
	if !r.exactlyOnce() || !errors.Is(err, errReplayDiffers) {
		return err
	}
	return r.replayDiffers(err)
}

// replayDiffers is what exactly-once cannot go on from: rows would be left out or repeated.
func (r *Relay) replayDiffers(err error) error { return halt("replay_differs", err, r.newSlot()) }

// newSlot is the way out where the stream cannot be trusted to bring the same rows again.
func (r *Relay) newSlot() Hint {
	return Hint{
		Say: "a minor upgrade or a changed publication lets the server decode the same WAL to other rows; to publish everything since the last mark again from the table, which may repeat some, have a new slot made",
		SQL: "SELECT pg_drop_replication_slot(" + literal(r.cfg.Slot) + ");",
	}
}
