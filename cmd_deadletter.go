package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

// States of a row that Kafka refused. The relay writes halted and carries out
// divert and skip; a person writes divert and skip; the last two are final.
const (
	stateHalted       = "halted"
	stateDivert       = "divert"
	stateSkip         = "skip"
	stateDeadLettered = "dead-lettered"
	stateSkipped      = "skipped"
)

// deadletterCommand makes "outrider deadletter": what a person does about rows
// that Kafka refused. load reads the environment of the relay whose rows they are.
func deadletterCommand(load func() (relay.Config, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletter",
		Short: "Show rows that Kafka refused; answer a relay that waits at one, publish them again, drop them",
		Long: "Rows that Kafka refused are kept in the table dead, whole, until they are retried or dropped.\n" +
			"A row is named by the id of its event or by its position. The commands work on the rows of one\n" +
			"relay, the one with this environment (OUTRIDER_DATABASE_URL, OUTRIDER_NAME or OUTRIDER_SLOT).",
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		deadListCommand(load),
		deadShowCommand(load),
		deadAnswerCommand(load, stateDivert, "Let the waiting relay publish rows to the dead-letter topic instead, and go on"),
		deadAnswerCommand(load, stateSkip, "Let the waiting relay leave rows out, and go on; they are kept here"),
		deadRetryCommand(load),
		deadDropCommand(load),
	)
	return cmd
}

// relayConfig is the configuration of the relay with this environment. What may
// be wrong with that of a sink is no business of who looks at the database.
func (p process) relayConfig() (relay.Config, error) {
	s, err := parse(p.environ)
	return s.Config, withCode(exitConfig, errors.Join(err, s.explain(s.resolve())))
}

// deadLetters are the rows that Kafka refused, over one connection.
type deadLetters struct {
	conn  *pgx.Conn
	cfg   relay.Config
	table string // quoted
}

// withDeadLetters lends f the rows of the relay with this environment, and
// explains errors of the server that have a known way out.
func withDeadLetters(cmd *cobra.Command, load func() (relay.Config, error), f func(ctx context.Context, d *deadLetters) error) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	return connected(cmd.Context(), cfg.DatabaseURL, func(conn *pgx.Conn) error {
		d := &deadLetters{conn: conn, cfg: cfg, table: pgx.Identifier{cfg.Schema, "dead"}.Sanitize()}
		// The encoding of a client that names none is the database's, and ours is
		// UTF-8: keys and JSON would be taken for other letters on their way back.
		if _, err := conn.Exec(cmd.Context(), `SET client_encoding = 'UTF8'`); err != nil {
			return fmt.Errorf("set client_encoding: %w", err)
		}
		return d.explain(cmd.Context(), f(cmd.Context(), d))
	})
}

// deadRow is a row that Kafka refused, without what can be large.
type deadRow struct {
	Slot      string    `json:"slot"`
	Source    string    `json:"source"`
	Position  string    `json:"position"`
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Reason    string    `json:"reason"`
	Topic     string    `json:"topic"`
	Size      int64     `json:"size"` // octets of value, key, type and headers, as the check row_size of events counts
	Age       int64     `json:"age_seconds"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

const (
	deadColumns = `slot, source, position, id, state, reason, topic,
 (coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0) + coalesce(octet_length(headers), 0))::bigint,
 extract(epoch FROM clock_timestamp() - created_at)::bigint, created_at, updated_at`

	// deadOrder is the order in which the relay met the rows. Positions alone
	// would not do: they compare under one source only.
	deadOrder = ` ORDER BY created_at, source, position`
)

// name is what a person can call r by: the position where the id is none that a
// terminal shows.
func (r deadRow) name() string {
	if r.ID == "" || r.ID != oneLine(r.ID) {
		return r.Position
	}
	return r.ID
}

// final reports whether the relay is done with r.
func (r deadRow) final() bool { return r.State == stateDeadLettered || r.State == stateSkipped }

// query reads rows of this relay; where is a condition on the columns, with arguments from $2 on.
func (d *deadLetters) query(ctx context.Context, on querier, where string, args ...any) ([]deadRow, error) {
	rows, err := on.Query(ctx, `SELECT `+deadColumns+` FROM `+d.table+` WHERE slot = $1 AND `+where, append([]any{d.cfg.Slot}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read the refused rows: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[deadRow])
	if err != nil {
		return nil, fmt.Errorf("read the refused rows: %w", err)
	}
	return found, nil
}

// querier is a connection or a transaction on it.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// named reads the rows that ids name, each by the id of its event or by its
// position, and locks them if on is a transaction that will change them. An id
// without a row is an error. An id may have several rows: after a recovery an
// event stands at another position, too.
func (d *deadLetters) named(ctx context.Context, on querier, ids []string, lock string) ([]deadRow, error) {
	found, err := d.query(ctx, on, `(id = ANY($2::text[]) OR position = ANY($2::text[]))`+deadOrder+lock, ids)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range ids {
		if !slices.ContainsFunc(found, func(r deadRow) bool { return r.ID == id || r.Position == id }) {
			errs = append(errs, d.unknown(ctx, on, id))
		}
	}
	return found, errors.Join(errs...)
}

const forUpdate = ` FOR UPDATE`

// unknown is the error for an id without a row, which may be another relay's.
func (d *deadLetters) unknown(ctx context.Context, on querier, id string) error {
	var slot string
	err := on.QueryRow(ctx, `SELECT slot FROM `+d.table+` WHERE id = $1 OR position = $1 LIMIT 1`, id).Scan(&slot)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return hinted(fmt.Errorf("no refused row has the id or position %q", id), relay.Hint{Say: "see which there are", Shell: "outrider deadletter list"})
	case err != nil:
		return fmt.Errorf("look for %q among the rows of other relays: %w", id, err)
	default:
		return hinted(fmt.Errorf("no refused row of slot %q has the id or position %q; slot %q has one", d.cfg.Slot, id, slot),
			relay.Hint{Say: "take the environment of that relay", Env: prefix + "SLOT=" + slot})
	}
}

// SQLSTATEs of PostgreSQL, appendix A.
const (
	sqlUndefinedTable = "42P01"
	sqlNoPrivilege    = "42501"
)

// explain gives errors of the server that an operator can do something about their ways out.
func (d *deadLetters) explain(ctx context.Context, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || relay.HintText(err) != "" {
		return err
	}
	switch server.Code {
	case sqlUndefinedTable:
		return hinted(err, relay.Hint{Say: "apply what is missing", Shell: "outrider migrate up"})
	case sqlNoPrivilege:
		var user string
		if asked := d.conn.QueryRow(ctx, `SELECT current_user`).Scan(&user); asked != nil {
			user = "NAME"
		}
		return hinted(err, relay.Hint{
			Say:   "as the owner of the tables, grant what is missing (retry writes events, and needs both grants)",
			Shell: fmt.Sprintf("outrider migrate up --only roles --roles relay=%[1]s,app=%[1]s", shellWord(user)),
		}, relay.Hint{Say: "give " + prefix + "DATABASE_URL of the owner of the tables to this command"})
	}
	return err
}

// shellWord is s as one word of a shell: what an application chose as an id is
// not to do anything when a hint with it is pasted.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_.:@%+-/", r)
	}
	if s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// someIDs refuses arguments that name nothing.
func someIDs(cmd *cobra.Command, args []string) error {
	if err := cobra.MinimumNArgs(1)(cmd, args); err != nil {
		return misuse(err)
	}
	return noEmptyID(args)
}

// idsOrAll wants ids or the flag, and not both.
func idsOrAll(all *bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if *all == (len(args) > 0) {
			return misuse(errors.New("name rows by id or position, or say --all; not both"))
		}
		return noEmptyID(args)
	}
}

// noEmptyID: rows without an id have an empty one, so it would name all of them.
func noEmptyID(args []string) error {
	if slices.ContainsFunc(args, func(id string) bool { return strings.TrimSpace(id) == "" }) {
		return misuse(errors.New("an id is empty; a row without one is named by its position"))
	}
	return nil
}
