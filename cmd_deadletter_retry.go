package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

func deadRetryCommand(load func() (relay.Config, error)) *cobra.Command {
	var all bool
	var topic string
	cmd := &cobra.Command{
		Use:   "retry <id>... | --all",
		Short: "Put dead-lettered and skipped rows into the events table again, with the same id",
		Long: "Puts dead-lettered and skipped rows into the events table again, with the same id: they are\n" +
			"published at the end of the stream, behind what was committed since. What was dead-lettered\n" +
			"stays on the dead-letter topic, too. Each event is a transaction of its own.",
		Args: idsOrAll(&all),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withDeadLetters(cmd, load, func(ctx context.Context, d *deadLetters) error {
				r, err := d.newRetry(ctx, topic)
				if err != nil {
					return err
				}
				events, err := r.events(ctx, ids)
				if err != nil {
					return err
				}
				return r.run(ctx, events, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead-lettered and skipped rows of this relay that have an id")
	cmd.Flags().StringVar(&topic, "topic", "", "value of the column topic (default: as it was)")
	return cmd
}

// retry puts refused rows into the events table again.
type retry struct {
	*deadLetters

	into  string // the events table, quoted
	topic string // instead of the row's; "" keeps it
	keep  bool   // rows stay in the table after the transaction (not in mode self-delete)
}

// newRetry fails if the events table is not the one that migrate makes: of
// another layout nobody here knows what a row must hold.
func (d *deadLetters) newRetry(ctx context.Context, topic string) (*retry, error) {
	schema, name, _ := strings.Cut(d.cfg.Table, ".") // checked by Config.Validate
	r := &retry{deadLetters: d, into: pgx.Identifier{schema, name}.Sanitize(), topic: topic}
	var kind, missing string
	err := d.conn.QueryRow(ctx, `SELECT coalesce((SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)), ''), coalesce(string_agg(name || ' ' || type, ', '), '')
FROM (VALUES ('id', 'uuid'), ('topic', 'text'), ('key', 'text'), ('type', 'text'), ('payload', 'json'), ('payload_bytes', 'bytea'), ('headers', 'jsonb')) AS native (name, type)
WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = name AND atttypid = to_regtype(type) AND NOT attisdropped)`,
		r.into).Scan(&kind, &missing)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at table %s: %w", d.cfg.Table, err)
	case kind == "":
		return nil, hinted(fmt.Errorf("there is no table %s", d.cfg.Table), relay.Hint{Say: "take the environment of the relay", Env: prefix + "TABLE=schema.table"})
	case kind != "r" && kind != "p" || missing != "":
		if missing == "" {
			missing = "it is no table"
		}
		return nil, hinted(fmt.Errorf("table %s is not as outrider migrate makes it (%s): retry cannot know how its rows are written", d.cfg.Table, missing),
			relay.Hint{Say: "write the event anew as the application does, with its value and under its id, then drop the row here", Shell: "outrider deadletter show --value <id> >value\noutrider deadletter drop <id>"})
	}
	// A row in self-delete mode is gone at commit: it lives in the log only.
	err = d.conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM `+pgx.Identifier{d.cfg.Schema, "settings"}.Sanitize()+` WHERE name = 'mode' AND value = 'self-delete')`).Scan(&r.keep)
	if err != nil {
		return nil, fmt.Errorf("read the mode of the outbox: %w", err)
	}
	return r, nil
}

// events returns the ids of the events that args name, all of them without
// args, in the order in which the relay met them. It changes nothing.
func (r *retry) events(ctx context.Context, args []string) (ids []string, err error) {
	var found []deadRow
	if len(args) == 0 {
		found, err = r.query(ctx, r.conn, isFinal+` AND id <> ''`+deadOrder) // without an id none can have the same one
	} else {
		found, err = r.named(ctx, r.conn, args, "")
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, row := range found {
		switch {
		case row.ID == "":
			errs = append(errs, hinted(fmt.Errorf("row %s has no id, so it cannot be published again under the same one", row.Position), r.byHand(row.Position)...))
		case !slices.Contains(ids, row.ID):
			ids = append(ids, row.ID)
		}
	}
	return ids, errors.Join(append(errs, allFinal(found))...)
}

// run retries one event after the other. One that the table refuses stops no
// other: that each event of a key stands where it was is over in any case.
func (r *retry) run(ctx context.Context, ids []string, out io.Writer) error {
	var errs []error
	for _, id := range ids {
		topic, err := r.one(ctx, id)
		if ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		if err != nil {
			errs = append(errs, r.explainRefusal(id, r.explain(ctx, err)))
			continue
		}
		_, _ = fmt.Fprintf(out, "retried %s: topic %s\n", id, topic)
	}
	if len(ids) == 0 {
		_, _ = fmt.Fprintln(out, "nothing to retry")
	}
	return errors.Join(errs...)
}

// one takes the event from the refused rows and puts it into the events table,
// or changes nothing.
func (r *retry) one(ctx context.Context, id string) (topic string, err error) {
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		found, err := r.query(ctx, tx, `id = $2`+deadOrder+forUpdate, id)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("row %s was retried or dropped meanwhile", id)
		}
		if err := allFinal(found); err != nil {
			return err
		}
		l, err := r.hold(ctx, tx, found[len(found)-1])
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM `+r.table+` WHERE slot = $1 AND id = $2 AND `+isFinal, r.cfg.Slot, id); err != nil {
			return fmt.Errorf("take row %s from the refused ones: %w", id, err)
		}
		err = tx.QueryRow(ctx, `DELETE FROM `+r.into+` WHERE id = $1::text::uuid RETURNING topic`, id).Scan(&topic)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("remove the old event %s: %w", id, err)
		}
		if topic, err = r.topicFor(l, topic); err != nil {
			return err
		}
		return r.insert(ctx, tx, l, topic)
	})
	return topic, err
}

// topicFor is the value for the column topic: what was asked for, else what the
// event had, else what the relay's prefix and renaming made the refused topic of.
func (r *retry) topicFor(l deadLetter, had string) (string, error) {
	if r.topic != "" {
		return r.topic, nil
	}
	if had != "" {
		return had, nil
	}
	var from []string
	if bare, ok := strings.CutPrefix(l.Topic, r.cfg.TopicPrefix); ok {
		for name, to := range r.cfg.TopicMap {
			if to == bare {
				from = append(from, name)
			}
		}
		if _, renamed := r.cfg.TopicMap[bare]; !renamed {
			from = append(from, bare)
		}
	}
	if len(from) != 1 {
		return "", hinted(fmt.Errorf("the event is no longer in the table, and prefix and map do not tell which topic it had there that went to %q", l.Topic),
			relay.Hint{Say: "say which", Shell: "outrider deadletter retry --topic <topic> " + shellWord(l.ID)})
	}
	return from[0], nil
}

// insert writes the event. A value that was JSON text goes back to payload; what
// the database does not take as JSON is as well kept as bytes.
func (r *retry) insert(ctx context.Context, tx pgx.Tx, l deadLetter, topic string) error {
	// The row's own headers count, not those of a session.
	if _, err := tx.Exec(ctx, `SELECT set_config('outbox.headers', '', true), set_config('outbox.traceparent', '', true)`); err != nil {
		return fmt.Errorf("clear the headers of the session: %w", err)
	}
	asJSON := utf8.Valid(l.Value) && json.Valid(l.Value)
	var err error
	if asJSON {
		err = r.write(ctx, tx, l, topic, new(string(l.Value)), nil)
	}
	if !asJSON || isDataException(err) {
		err = r.write(ctx, tx, l, topic, nil, l.Value)
	}
	if err != nil || r.keep {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM `+r.into+` WHERE id = $1::text::uuid`, l.ID); err != nil {
		return fmt.Errorf("delete event %s in its own transaction: %w", l.ID, err)
	}
	return nil
}

// write inserts the event below a savepoint, so that another form can be tried after it.
func (r *retry) write(ctx context.Context, tx pgx.Tx, l deadLetter, topic string, payload *string, bytes []byte) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO `+r.into+` (id, topic, key, type, payload, payload_bytes, headers)
 VALUES ($1::text::uuid, $2, $3, $4, $5::text::json, $6, $7::text::jsonb)`, l.ID, topic, l.Key, l.Type, payload, bytes, l.Headers)
		return err
	})
	if err != nil {
		return fmt.Errorf("insert event %s: %w", l.ID, err)
	}
	return nil
}

// Classes of SQLSTATEs of PostgreSQL, appendix A.
func isDataException(err error) bool       { return sqlClass(err) == "22" }
func isConstraintViolation(err error) bool { return sqlClass(err) == "23" }

func sqlClass(err error) string {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(server.Code) < 2 {
		return ""
	}
	return server.Code[:2]
}

// explainRefusal adds the way out of what the events table does not take.
func (r *retry) explainRefusal(id string, err error) error {
	if relay.HintText(err) != "" || !isDataException(err) && !isConstraintViolation(err) {
		return err
	}
	if server, _ := errors.AsType[*pgconn.PgError](err); server.ConstraintName == "topic_name" {
		return hinted(err, relay.Hint{Say: "nothing was changed; name a topic that Kafka takes", Shell: "outrider deadletter retry --topic <topic> " + shellWord(id)})
	}
	return hinted(err, r.byHand(id)...)
}

// byHand is the way out for a row that cannot come back as it is.
func (r *retry) byHand(id string) []relay.Hint {
	return []relay.Hint{{
		Say:   "nothing was changed; write an event that the table takes in its place, then drop the row here",
		Shell: "outrider deadletter show " + shellWord(id) + "\noutrider deadletter drop " + shellWord(id),
	}}
}
