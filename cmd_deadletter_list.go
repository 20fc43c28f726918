package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

// deadList is what the flags of the list say.
type deadList struct {
	output   string
	states   []string
	allSlots bool
}

func deadListCommand(load func() (relay.Config, error)) *cobra.Command {
	l := new(deadList)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List rows that Kafka refused, in the order in which the relay met them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := l.check(); err != nil {
				return err
			}
			return withDeadLetters(cmd, load, func(ctx context.Context, d *deadLetters) error {
				return l.run(ctx, d, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	cmd.Flags().StringVar(&l.output, "output", "text", "text, or json: an array")
	cmd.Flags().StringSliceVar(&l.states, "state", nil, "only these: "+strings.Join(deadStates(), ", "))
	cmd.Flags().BoolVar(&l.allSlots, "all-slots", false, "rows of every relay of this database")
	return cmd
}

func deadStates() []string {
	return []string{stateHalted, stateDivert, stateSkip, stateDeadLettered, stateSkipped}
}

func (l *deadList) check() error {
	if l.output != "text" && l.output != "json" {
		return misuse(fmt.Errorf("--output %q: text or json", l.output))
	}
	for _, s := range l.states {
		if !slices.Contains(deadStates(), s) {
			return misuse(fmt.Errorf("--state %q: %s", s, strings.Join(deadStates(), ", ")))
		}
	}
	return nil
}

func (l *deadList) run(ctx context.Context, d *deadLetters, out, notes io.Writer) error {
	rows, err := d.conn.Query(ctx, `SELECT `+deadColumns+` FROM `+d.table+`
 WHERE ($1 OR slot = $2) AND (coalesce(cardinality($3::text[]), 0) = 0 OR state = ANY($3))`+deadOrder, l.allSlots, d.cfg.Slot, l.states)
	if err != nil {
		return fmt.Errorf("read the refused rows: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[deadRow])
	if err != nil {
		return fmt.Errorf("read the refused rows: %w", err)
	}
	if l.output == "json" {
		return writeDeadJSON(out, found)
	}
	if err := l.writeTable(out, found); err != nil || l.allSlots {
		return err
	}
	return d.noteOthers(ctx, notes)
}

func writeDeadJSON(w io.Writer, found []deadRow) error {
	to := json.NewEncoder(w)
	to.SetIndent("", "  ")
	to.SetEscapeHTML(false)
	if found == nil {
		found = []deadRow{} // an empty array, not null
	}
	return to.Encode(found)
}

func (l *deadList) writeTable(out io.Writer, found []deadRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	slot := func(s string) string {
		if !l.allSlots {
			return ""
		}
		return s + "\t"
	}
	_, _ = fmt.Fprint(w, slot("SLOT"), "ID\tSTATE\tTOPIC\tPOSITION\tSIZE\tAGE\tREASON\n")
	for _, r := range found {
		id := "-"
		if r.ID != "" {
			id = oneLine(r.ID)
		}
		_, _ = fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%d\t%s\t%s\n", slot(r.Slot), id, r.State, oneLine(r.Topic), r.Position, r.Size, r.age(), oneLine(r.Reason))
	}
	return w.Flush()
}

// age is how long ago the row was refused, by the clock of the server.
func (r deadRow) age() time.Duration { return time.Duration(r.Age) * time.Second }

// noteOthers says that rows of other relays are not in the list: whoever looks
// with a wrong name would otherwise believe that there are none.
func (d *deadLetters) noteOthers(ctx context.Context, notes io.Writer) error {
	var others int64
	if err := d.conn.QueryRow(ctx, `SELECT count(*) FROM `+d.table+` WHERE slot <> $1`, d.cfg.Slot).Scan(&others); err != nil {
		return fmt.Errorf("count the rows of other relays: %w", err)
	}
	if others > 0 {
		_, _ = fmt.Fprintf(notes, "note: these are the rows of slot %s; other slots have %d: outrider deadletter list --all-slots\n", d.cfg.Slot, others)
	}
	return nil
}

// oneLine keeps what an application wrote from moving the cursor of a terminal,
// and from being more than one cell of a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
