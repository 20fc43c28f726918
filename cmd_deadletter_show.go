package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

func deadShowCommand(load func() (relay.Config, error)) *cobra.Command {
	var valueOnly bool
	cmd := &cobra.Command{
		Use:   "show <id>",
		Short: "Show everything that is known of a refused row, its value too",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return misuse(err)
			}
			return noEmptyID(args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDeadLetters(cmd, load, func(ctx context.Context, d *deadLetters) error {
				found, err := d.whole(ctx, args)
				switch {
				case err != nil:
					return err
				case valueOnly:
					return writeDeadValue(cmd.OutOrStdout(), cmd.ErrOrStderr(), found)
				}
				for i, l := range found {
					if i > 0 {
						_, _ = fmt.Fprintln(cmd.OutOrStdout())
					}
					if err := l.write(cmd.OutOrStdout()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&valueOnly, "value", false, "write the bytes of the value to stdout, and nothing else")
	return cmd
}

// deadLetter is a refused row with all that it holds.
type deadLetter struct {
	deadRow

	Key, Type, Headers *string
	Value              []byte // nil: tombstone
	CommittedAt        *time.Time
}

// whole reads the rows that ids name with all they hold.
func (d *deadLetters) whole(ctx context.Context, ids []string) ([]deadLetter, error) {
	rows, err := d.named(ctx, d.conn, ids, "")
	if err != nil {
		return nil, err
	}
	all := make([]deadLetter, 0, len(rows))
	for _, r := range rows {
		l, err := d.hold(ctx, d.conn, r)
		if errors.Is(err, pgx.ErrNoRows) {
			continue // retried or dropped meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// hold reads what r holds.
func (d *deadLetters) hold(ctx context.Context, on querier, r deadRow) (deadLetter, error) {
	l := deadLetter{deadRow: r}
	err := on.QueryRow(ctx, `SELECT key, type, headers, value, committed_at FROM `+d.table+` WHERE slot = $1 AND source = $2 AND position = $3`,
		r.Slot, r.Source, r.Position).Scan(&l.Key, &l.Type, &l.Headers, &l.Value, &l.CommittedAt)
	if err != nil {
		return l, fmt.Errorf("read the refused row %s: %w", r.name(), err)
	}
	return l, nil
}

// writeDeadValue writes one value. An event that was refused at several
// positions has the same at each.
func writeDeadValue(out, notes io.Writer, found []deadLetter) error {
	for _, l := range found[min(1, len(found)):] {
		if (l.Value == nil) != (found[0].Value == nil) || !bytes.Equal(l.Value, found[0].Value) {
			return hinted(fmt.Errorf("%d rows with different values have this name", len(found)), relay.Hint{Say: "name one by its id, or by its position", Shell: "outrider deadletter list"})
		}
	}
	if len(found) == 0 || found[0].Value == nil {
		_, _ = fmt.Fprintln(notes, "note: a tombstone, it has no value")
		return nil
	}
	_, err := out.Write(found[0].Value)
	return err
}

// write prints one line a field, and the value below.
func (l deadLetter) write(w io.Writer) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	committed := "-"
	if l.CommittedAt != nil {
		committed = at(*l.CommittedAt)
	}
	for _, f := range [][2]string{
		{"id", shown(&l.ID)},
		{"state", l.State},
		{"reason", shown(&l.Reason)},
		{"topic", shown(&l.Topic)},
		{"key", shown(l.Key)},
		{"type", shown(l.Type)},
		{"headers", shown(l.Headers)},
		{"slot", l.Slot},
		{"source", l.Source},
		{"position", l.Position},
		{"committed at", committed},
		{"refused at", fmt.Sprintf("%s (%s ago)", at(l.CreatedAt), l.age())},
		{"changed at", at(l.UpdatedAt)},
	} {
		if _, err := fmt.Fprintf(w, "%-14s%s\n", f[0]+":", f[1]); err != nil {
			return err
		}
	}
	form, text := "tombstone", ""
	switch {
	case l.Value == nil:
	case readable(l.Value):
		form, text = fmt.Sprintf("%d bytes", len(l.Value)), string(l.Value)
	default:
		form, text = fmt.Sprintf("%d bytes, in base64", len(l.Value)), base64.StdEncoding.EncodeToString(l.Value)
	}
	if text != "" {
		text = "\n" + strings.TrimSuffix(text, "\n") + "\n"
	}
	_, err := fmt.Fprintf(w, "%-14s%s\n%s", "value:", form, text)
	return err
}

// shown is a field as a person can tell it apart: quoted where it is empty or
// holds what a terminal would not show, and - if there is none.
func shown(s *string) string {
	switch {
	case s == nil:
		return "-"
	case *s == "" || *s == "-" || !readable([]byte(*s)) || strings.ContainsAny(*s, "\n\t\r"):
		return strconv.Quote(*s)
	default:
		return *s
	}
}

// readable reports whether b is text that does nothing to a terminal but fill it.
func readable(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t'
	})
}
