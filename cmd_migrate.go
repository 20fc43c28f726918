package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
)

// outboxAt is where the tables are: what migrate needs of the environment. An
// unset URL leaves it to the PG* variables. It must lead to the server itself
// and to a role that may create what is missing.
type outboxAt struct {
	url   secret.Text
	names migrations.Names
}

// migrateCommand makes "outrider migrate". load reads the environment; its
// error is for values that are wrong, not for absent ones.
func migrateCommand(load func() (outboxAt, error)) *cobra.Command {
	m := &migration{load: load}
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make the outbox table in the database, or print its SQL",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&m.names.Schema, "schema", "", "schema of the tables (default: OUTRIDER_SCHEMA, or "+migrations.DefaultSchema+")")
	flags.StringVar(&m.names.Publication, "publication", "", "publication of the table (default: OUTRIDER_PUBLICATION, or "+migrations.DefaultPublication+")")
	cmd.AddCommand(
		m.printing(),
		m.applying(&cobra.Command{
			Use:   "up",
			Short: "Apply what is missing; may be run at any time",
			RunE:  m.up,
		}),
		&cobra.Command{
			Use:   "status",
			Short: "Show what is applied, missing or altered; exit code 1 if something is",
			Args:  noArgs,
			RunE:  m.status,
		},
	)
	return cmd
}

// migration is what the flags of the commands say.
type migration struct {
	load  func() (outboxAt, error)
	names migrations.Names
	roles []string
	only  []string
}

func (m *migration) applying(cmd *cobra.Command) *cobra.Command {
	cmd.Args = noArgs
	cmd.Flags().StringSliceVar(&m.roles, "roles", nil, "existing roles to grant what they need: app=NAME for a writer of events, relay=NAME for a relay, consumer=NAME for a consumer with the inbox")
	cmd.Flags().StringSliceVar(&m.only, "only", nil, "only files of this privilege: owner, publication, roles; or inbox: what a consumer's own database needs")
	return cmd
}

func (m *migration) up(cmd *cobra.Command, _ []string) error {
	o, url, err := m.options()
	if err != nil {
		return err
	}
	return connected(cmd.Context(), url, func(conn *pgx.Conn) error {
		report, err := migrate.Up(cmd.Context(), conn, o)
		out := cmd.OutOrStdout()
		for _, name := range report.Applied {
			_, _ = fmt.Fprintln(out, "applied", name)
		}
		if err == nil && len(report.Applied) == 0 {
			_, _ = fmt.Fprintln(out, "up to date")
		}
		for _, warning := range report.Warnings {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
		}
		if e, ok := errors.AsType[*migrate.PrivilegeError](err); ok && e.SQL != "" {
			return hinted(err, relay.Hint{Say: "as an administrator", SQL: e.SQL})
		}
		return err
	})
}

func (m *migration) status(cmd *cobra.Command, _ []string) error {
	o, url, err := m.options()
	if err != nil {
		return err
	}
	return connected(cmd.Context(), url, func(conn *pgx.Conn) error {
		status, err := migrate.Check(cmd.Context(), conn, o.Names)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(cmd.OutOrStdout(), status); err != nil {
			return err
		}
		if !status.UpToDate() {
			return hinted(migrate.ErrNotUpToDate, relay.Hint{Say: "apply what is missing", Shell: "outrider migrate up"})
		}
		return nil
	})
}

// options puts flags before environment.
func (m *migration) options() (o migrate.Options, url secret.Text, err error) {
	at, err := m.load()
	if err != nil {
		return o, url, err
	}
	o.Names = migrations.Names{
		Schema:      cmp.Or(m.names.Schema, at.names.Schema),
		Publication: cmp.Or(m.names.Publication, at.names.Publication),
	}
	if o.Names, err = o.Names.Normalize(); err != nil {
		return o, url, misuse(err)
	}
	if o.Roles, err = parseRoles(m.roles); err != nil {
		return o, url, err
	}
	o.Only, err = parsePrivileges(m.only)
	return o, at.url, err
}

func parseRoles(given []string) ([]migrations.Role, error) {
	var roles []migrations.Role
	for _, pair := range given {
		kind, name, ok := strings.Cut(pair, "=")
		role := migrations.Role{Privilege: migrations.Privilege(kind + " role"), Name: name}
		if !ok || name == "" || role.Privilege != migrations.AppRole && role.Privilege != migrations.RelayRole && role.Privilege != migrations.ConsumerRole {
			return nil, misuse(fmt.Errorf("--roles %q: write app=NAME, relay=NAME or consumer=NAME", pair))
		}
		roles = append(roles, role)
	}
	return roles, nil
}

func parsePrivileges(given []string) ([]migrations.Privilege, error) {
	var only []migrations.Privilege
	for _, word := range given {
		switch word {
		case "owner", "publication":
			only = append(only, migrations.Privilege(word))
		case "roles":
			only = append(only, migrations.AppRole, migrations.RelayRole, migrations.ConsumerRole)
		case "inbox":
			only = append(only, migrations.Inbox)
		default:
			return nil, misuse(fmt.Errorf("--only %q: write owner, publication, roles or inbox", word))
		}
	}
	return only, nil
}

// connected lends f a connection. The URL may hold a password, so an error of
// its parser is not passed on.
func connected(ctx context.Context, from secret.Text, f func(*pgx.Conn) error) (err error) {
	url, err := from.Reveal()
	if err != nil {
		return withCode(exitConfig, err)
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("the database URL is neither a libpq URL nor a keyword string")
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "outrider migrate"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	return f(conn)
}
