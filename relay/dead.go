package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// States in the table dead. The relay writes halted, and the two last; a person
// answers a relay that waits with divert or skip.
const (
	deadHalted   = "halted"
	deadDivert   = "divert"
	deadSkip     = "skip"
	deadLettered = "dead-lettered"
	deadSkipped  = "skipped"
)

const stateUndefinedTable = "42P01"

// refusal is a row that the sink refused although nothing else was in flight,
// or that cannot be laid out.
type refusal struct {
	message *Message
	bad     *unfit // nil: the sink refused it
	cause   error
	letter  bool // what was refused is its dead letter
}

func (c *refusal) Error() string {
	return fmt.Sprintf("row %s at position %s for topic %q: %v", c.message.ID, c.message.Position, c.message.Topic, c.cause)
}

// Unwrap gives the class and the cause.
func (c *refusal) Unwrap() []error { return []error{ErrPoison, c.cause} }

// setAside ends a session because of a row about which is decided: the next one
// carries it out. It does not wrap its cause, whose class would halt the relay.
type setAside struct{ cause error }

func (s *setAside) Error() string { return "what was refused is set aside: " + s.cause.Error() }

// dead is the table of refused rows, within a leadership.
type dead struct {
	db   *database
	lead leadership
}

// dead runs f on a connection of its own, while statuses go on.
func (s *stream) dead(ctx context.Context, f func(context.Context, *dead) error) error {
	return s.aside(ctx, func(ctx context.Context) error { return s.withDead(ctx, f) })
}

func (s *stream) withDead(ctx context.Context, f func(context.Context, *dead) error) error {
	db, err := s.relay.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	// The encoding of a client that names none is the database's, and ours is UTF-8.
	if _, err := db.Exec(ctx, `SET client_encoding = 'UTF8'`); err != nil {
		return fmt.Errorf("set client_encoding: %w", err)
	}
	return f(ctx, &dead{db, s.progress.lead})
}

func (db *database) deadTable() string {
	return pgx.Identifier{db.relay.cfg.Schema, "dead"}.Sanitize()
}

// still is the condition that we lead on the server that feeds us; it takes what guard takes.
func (d *dead) still() string {
	return `EXISTS (SELECT FROM ` + d.db.relays() + ` WHERE ` + guard + `)`
}

// verdicts reads what is known of refused rows. Those before confirmed under the
// same source were passed: what waits there waits for nobody. A table from before
// there were refused rows has none; that it is missing is told when it is needed.
func (db *database) verdicts(ctx context.Context, source string, lead leadership, streaming bool) ([]verdict, error) {
	d := &dead{db, lead}
	from := ""
	var err error
	if streaming {
		from = Position{LSN: lead.confirmed}.String()
		_, err = db.Exec(ctx, `DELETE FROM `+db.deadTable()+` WHERE slot = $1 AND source = $4 AND position COLLATE "C" < $5
 AND state IN ('halted', 'divert', 'skip') AND `+d.still(), db.relay.cfg.Slot, lead.epoch, lead.pid, source, from)
	}
	var found []verdict
	if err == nil {
		var rows pgx.Rows
		rows, err = db.Query(ctx, `SELECT source, position, id, state FROM `+db.deadTable()+`
 WHERE slot = $1 AND (source = $2 AND position COLLATE "C" >= $3 OR source <> $2 AND state IN ('halted', 'divert', 'skip'))`, db.relay.cfg.Slot, source, from)
		if err == nil {
			found, err = pgx.CollectRows(rows, scanVerdict)
		}
	}
	switch state := sqlState(err); {
	case state == stateUndefinedTable, state == stateNoPrivilege:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at the refused rows: %w", err)
	}
	return found, nil
}

func scanVerdict(row pgx.CollectableRow) (v verdict, err error) {
	var position string
	if err := row.Scan(&v.source, &position, &v.id, &v.state); err != nil {
		return v, err
	}
	if _, err := fmt.Sscanf(position, "%X.%X", (*uint64)(&v.position.LSN), &v.position.Ordinal); err != nil {
		return v, fmt.Errorf("position %q: %w", position, err)
	}
	return v, nil
}

// keep stores c whole under state. A row that waits becomes what state says; an
// answer that came meanwhile stays. A row at which a relay waited under another
// source is this one.
func (d *dead) keep(ctx context.Context, c *refusal, source, state string) error {
	m, table := c.message, d.db.deadTable()
	over := `dead.state = 'halted'`
	if c.letter {
		over = `dead.state = 'dead-lettered'`
	}
	_, err := d.db.Exec(ctx, `WITH elsewhere AS (DELETE FROM `+table+` WHERE slot = $1 AND id = $6 AND $6 <> '' AND source <> $4 AND state = 'halted' AND `+d.still()+`)
INSERT INTO `+table+` AS dead (slot, source, position, id, state, reason, topic, key, type, value, headers, committed_at)
SELECT $1, $4, $5, $6, $7, $8, $9, $10, $11, $12::bytea, $13, $14::timestamptz WHERE `+d.still()+`
ON CONFLICT (slot, source, position) DO UPDATE SET state = excluded.state, reason = excluded.reason, updated_at = clock_timestamp() WHERE `+over,
		d.db.relay.cfg.Slot, d.lead.epoch, d.lead.pid, source, m.Position.String(), storable(m.ID), state, reasonText(c.cause), m.Topic,
		storableOrNil(m.Key), storableOrNil(m.Type), m.Value, m.headersText(c.bad), m.CommittedAt)
	if err != nil {
		return fmt.Errorf("keep the refused row: %w", err)
	}
	return nil
}

// become writes that an answer is carried out.
func (d *dead) become(ctx context.Context, v verdict, state string) error {
	tag, err := d.db.Exec(ctx, `UPDATE `+d.db.deadTable()+` SET state = $6, updated_at = clock_timestamp() WHERE slot = $1 AND source = $4 AND position = $5 AND state = $7 AND `+d.still(),
		d.db.relay.cfg.Slot, d.lead.epoch, d.lead.pid, v.source, v.position.String(), state, v.state)
	return d.changed(tag.RowsAffected(), err)
}

// remove forgets a row that could be published after all.
func (d *dead) remove(ctx context.Context, v verdict) error {
	_, err := d.db.Exec(ctx, `DELETE FROM `+d.db.deadTable()+` WHERE slot = $1 AND source = $4 AND position = $5 AND `+d.still(),
		d.db.relay.cfg.Slot, d.lead.epoch, d.lead.pid, v.source, v.position.String())
	return d.changed(1, err) // somebody removed it before: as well
}

// reason is why v was refused.
func (d *dead) reason(ctx context.Context, v verdict) (reason string, err error) {
	err = d.db.QueryRow(ctx, `SELECT reason FROM `+d.db.deadTable()+` WHERE slot = $1 AND source = $2 AND position = $3`,
		d.db.relay.cfg.Slot, v.source, v.position.String()).Scan(&reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", &setAside{errAnswerGone}
	}
	return reason, err
}

// errAnswerGone: a person changed the row between the look and the deed. The next session looks again.
var errAnswerGone = errors.New("the refused row was changed by somebody else")

func (d *dead) changed(rows int64, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("write down what became of a refused row: %w", err)
	case rows == 0:
		return &setAside{errAnswerGone}
	}
	return nil
}

// judge is the end of a leadership in which a row was condemned: the row is kept,
// whatever is to become of it. Any other err is returned as it is.
func (s *stream) judge(ctx context.Context, err error) error {
	c, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	r := s.relay
	state := map[string]string{PoisonDeadLetter: deadLettered, PoisonSkip: deadSkipped}[r.cfg.Poison]
	if state == "" || c.letter {
		state = deadHalted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	kept := s.withDead(ctx, func(ctx context.Context, d *dead) error { return d.keep(ctx, c, string(s.source), state) })
	switch sqlState(kept) {
	case stateUndefinedTable, stateNoPrivilege:
		return halt("poison", fmt.Errorf("%w; and it cannot be kept: %w", c, kept),
			Hint{Say: "apply the migration that brings the table for refused rows, with the grants of the relay's role", Shell: "outrider migrate up --roles relay=" + strings.Trim(r.quotedUser(), `"`)})
	}
	if kept != nil {
		return fmt.Errorf("%w; found was: %s", kept, c.Error()) // not its class: to be found again
	}
	if state != deadHalted {
		r.log.Error("a row cannot be published", "id", string(c.message.ID), "position", c.message.Position.String(), "topic", c.message.Topic, "policy", r.cfg.Poison, "error", c.cause)
		return &setAside{c}
	}
	return halt("poison", c, r.waysOut(c)...)
}

// waysOut of a relay that waits at c.
func (r *Relay) waysOut(c *refusal) (hints []Hint) {
	name := string(c.message.ID)
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) || name[0] == '-' {
		name = c.message.Position.String() // an id of somebody's making must do nothing in a shell
	}
	if c.bad == nil {
		mend := Hint{Say: "mend what refuses it, and the relay goes on by itself"}
		if m, ok := errors.AsType[Mendable](c.cause); ok {
			mend = m.Mend()
		}
		hints = append(hints, mend)
	}
	if errors.Is(c.cause, errForbidden) {
		hints = append(hints, Hint{Say: "allow the topic", Env: "OUTRIDER_TOPICS_ALLOWED=" + strings.Join(append(slices.Clone(r.cfg.TopicsAllowed), c.message.Topic), ",")})
	}
	if !c.letter {
		hints = append(hints, Hint{Say: "let it go to the topic of dead letters, " + r.cfg.DeadLetterTopic + ", and its successors pass", Shell: "outrider deadletter divert " + name})
	}
	return append(hints, Hint{Say: "leave it out; the table of refused rows keeps it, whole", Shell: "outrider deadletter skip " + name})
}

// Mendable is an [ErrPoison] of which the sink knows how it can be mended.
type Mendable interface {
	error
	Mend() Hint
}

// maxReason bounds what is stored and sent of an error, in bytes.
const maxReason = 1000

func reasonText(err error) string {
	text := storable([]byte(strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", ""), "?")))
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "")
	}
	return text
}
