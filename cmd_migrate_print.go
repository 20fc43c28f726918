package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/internal/migrate/format"
)

// printing makes "outrider migrate print", which needs no database.
func (m *migration) printing() *cobra.Command {
	p := &migrationPrint{migration: m}
	cmd := m.applying(&cobra.Command{
		Use:   "print",
		Short: "Print the SQL, for psql or another migration tool; needs no database",
		RunE:  p.run,
	})
	flags := cmd.Flags()
	flags.StringVar(&p.format, "format", "sql", "migration tool: "+strings.Join(format.Names(), ", "))
	flags.StringVar(&p.direction, "direction", "", "up or down; down loses the rows (default: up on standard output, both with --dir)")
	flags.IntVar(&p.from, "from", 0, "number of the first migration, also for down (default: the first)")
	flags.IntVar(&p.to, "to", 0, "number of the last migration, also for down (default: the last)")
	flags.StringVar(&p.dir, "dir", "", "write one file, or pair of files, a migration into this folder; none is overwritten")
	flags.Uint64Var(&p.base, "base", 0, "number to add to each, for tools that order by number or timestamp, such as 20260131120000")
	flags.StringVar(&p.after, "after", "", "revision (alembic) or migration (django) that the first one follows")
	flags.StringVar(&p.app, "app", "", "label of the application (django; default: outbox)")
	cmd.Flags().Lookup("roles").Usage += ", owner=NAME to do everything as that role"
	return cmd
}

// migrationPrint is what the flags of print say.
type migrationPrint struct {
	*migration
	format, direction, dir, after, app string
	from, to                           int
	base                               uint64
}

func (p *migrationPrint) run(cmd *cobra.Command, _ []string) error {
	o, err := p.options(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if p.dir == "" {
		text, err := format.One(o)
		if err != nil {
			return misuse(fmt.Errorf("print: %w", err))
		}
		_, err = fmt.Fprint(out, text)
		return err
	}
	files, err := format.Folder(o)
	if err != nil {
		return misuse(fmt.Errorf("print: %w", err))
	}
	written, err := format.Write(p.dir, files)
	for _, path := range written {
		_, _ = fmt.Fprintln(out, "wrote", path)
	}
	if err == nil && len(written) == 0 {
		_, _ = fmt.Fprintln(out, "all files are there already")
	}
	return err
}

// options takes the owner out of the roles: he is granted nothing.
func (p *migrationPrint) options(cmd *cobra.Command) (format.Options, error) {
	var o format.Options
	var granted []string
	for _, pair := range p.roles {
		name, ok := strings.CutPrefix(pair, "owner=")
		switch {
		case !ok:
			granted = append(granted, pair)
		case name == "" || o.Owner != "":
			return o, misuse(fmt.Errorf("--roles %q: name one owner", pair))
		default:
			o.Owner = name
		}
	}
	p.roles = granted
	base, _, err := p.migration.options()
	if err != nil {
		return o, err
	}
	direction := format.Direction(p.direction)
	if p.direction != "" && direction != format.Up && direction != format.Down {
		return o, misuse(fmt.Errorf("--direction %q: write up or down", p.direction))
	}
	if cmd.Flags().Changed("after") || p.app != "" {
		if p.format != "alembic" && p.format != "django" || p.app != "" && p.format != "django" {
			return o, misuse(fmt.Errorf("--after is for alembic and django, --app is for django, not for %s", p.format))
		}
	}
	return format.Options{
		Format: p.format, Direction: direction, Names: base.Names, Roles: base.Roles, Owner: o.Owner, Only: base.Only,
		From: p.from, To: p.to, Base: p.base, After: p.after, App: p.app,
	}, nil
}
