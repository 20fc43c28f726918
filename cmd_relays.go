package main

import (
	"cmp"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
)

// relaysCommand makes "outrider relays": progress rows, and how to get rid of
// one whose relay will not come back, since it keeps rows in the table.
func relaysCommand(load func() (outboxAt, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relays",
		Short: "Show the progress rows of all relays, or remove that of a dead one",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var dropSlot bool
	remove := &cobra.Command{
		Use:   "remove <slot>",
		Short: "Remove the progress row of a relay that will not come back",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return misuse(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return withRelays(cmd, load, func(conn *pgx.Conn, table string) error { return removeRelay(cmd, conn, table, args[0], dropSlot) })
		},
	}
	remove.Flags().BoolVar(&dropSlot, "drop-slot", false, "drop the replication slot too, if it still stands and nobody uses it")
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "Show slot, phase, leader, age of the last write, and the slot's state",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withRelays(cmd, load, func(conn *pgx.Conn, table string) error { return listRelays(cmd, conn, table) })
		},
	}, remove)
	return cmd
}

// withRelays lends f a connection and the quoted name of the table of progress rows.
func withRelays(cmd *cobra.Command, load func() (outboxAt, error), f func(conn *pgx.Conn, table string) error) error {
	at, err := load()
	if err != nil {
		return err
	}
	table := pgx.Identifier{cmp.Or(at.names.Schema, migrations.DefaultSchema), "relays"}.Sanitize()
	return connected(cmd.Context(), at.url, func(conn *pgx.Conn) error { return f(conn, table) })
}

func listRelays(cmd *cobra.Command, conn *pgx.Conn, table string) error {
	rows, err := conn.Query(cmd.Context(), `SELECT p.slot, p.phase, p.instance, p.epoch::text, date_trunc('second', clock_timestamp() - p.updated_at)::text,
 CASE WHEN s.slot_name IS NULL THEN 'missing' WHEN s.active THEN 'active' ELSE 'inactive' END, coalesce(s.wal_status, '-')
 FROM `+table+` p LEFT JOIN pg_replication_slots s ON s.slot_name = p.slot ORDER BY p.slot`)
	if err != nil {
		return fmt.Errorf("read the progress rows: %w", err)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SLOT\tPHASE\tINSTANCE\tEPOCH\tLAST WRITE\tSLOT STATE\tWAL")
	var c [7]string
	if _, err := pgx.ForEachRow(rows, []any{&c[0], &c[1], &c[2], &c[3], &c[4], &c[5], &c[6]}, func() error {
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c[0], c[1], c[2], c[3], c[4], c[5], c[6])
		return err
	}); err != nil {
		return fmt.Errorf("read the progress rows: %w", err)
	}
	return w.Flush()
}

// removeRelay refuses whatever a living relay could still need.
func removeRelay(cmd *cobra.Command, conn *pgx.Conn, table, slot string, dropSlot bool) error {
	var active bool
	err := conn.QueryRow(cmd.Context(), `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&active)
	stands := err == nil
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look at the slot: %w", err)
	case stands && active:
		return hinted(fmt.Errorf("slot %q is in use: a relay leads with it", slot), relay.Hint{Say: "stop that relay first"})
	case stands && !dropSlot:
		return hinted(fmt.Errorf("slot %q still stands; without its row no relay would use it, and it would keep WAL for ever", slot),
			relay.Hint{Say: "remove both", Shell: "outrider relays remove --drop-slot " + slot})
	}
	tag, err := conn.Exec(cmd.Context(), `DELETE FROM `+table+` WHERE slot = $1`, slot)
	if err != nil {
		return fmt.Errorf("remove the progress row: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return hinted(fmt.Errorf("there is no progress row of slot %q", slot), relay.Hint{Say: "see which there are", Shell: "outrider relays list"})
	}
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), "removed the progress row of slot %s\n", slot)
	if stands {
		if _, err := conn.Exec(cmd.Context(), `SELECT pg_drop_replication_slot($1)`, slot); err != nil {
			return fmt.Errorf("drop the slot: %w", err)
		}
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "dropped slot %s\n", slot)
	}
	return nil
}
