// Package format prints the migrations of the outbox the way other migration
// tools want them, so that a team keeps the tool that it has.
//
// It promises that every printer brings the same SQL, up and down, past the
// splitter, the placeholders and the parameters of its tool; that each keeps the
// notes in schema_version, so that "outrider migrate status" can tell whatever
// tool ran it; that the same options give the same bytes; and that no file with
// other content is overwritten.
//
// A migration sets its search path, and with an owner its role, for the
// transaction in which the tool runs it, and puts both back at its end: most
// tools write their own history in the same transaction, some run other
// migrations in it. Outside of a transaction it fails before it makes anything.
//
// It does not connect to a database and runs no tool.
package format

import (
	"fmt"
	"slices"
	"strings"
)

// Direction of a file. A file that says both has none.
type Direction string

// Directions.
const (
	Both Direction = ""
	Up   Direction = "up"
	Down Direction = "down"
)

// File is one file of a tool.
type File struct {
	Path      string // below the folder of migrations, with slashes
	Direction Direction
	Text      string
}

// printer knows one tool.
type printer interface {
	// files renders a change. An error means that the tool could not take it.
	files(c Change) ([]File, error)
}

// chained is a printer whose files name the one that they follow.
type chained interface{ chained() }

// printers in the order in which they are documented.
func printers(o Options) []struct {
	name string
	printer
} {
	return []struct {
		name string
		printer
	}{
		{"sql", plain{}},
		{"goose", goose{}},
		{"golang-migrate", golangMigrate{}},
		{"flyway", flyway{}},
		{"liquibase", liquibase{}},
		{"alembic", alembic{}},
		{"django", django{app: o.App}},
		{"prisma", prisma{}},
	}
}

// Names lists the formats.
func Names() []string {
	var names []string
	for _, p := range printers(Options{}) {
		names = append(names, p.name)
	}
	return names
}

func named(o Options) (printer, error) {
	for _, p := range printers(o) {
		if p.name == o.Format {
			return p.printer, nil
		}
	}
	return nil, fmt.Errorf("format %q: write one of %s", o.Format, strings.Join(Names(), ", "))
}

// One renders all that o selects as one file, for one migration of the tool. An
// error tells an option that the format does not have.
func One(o Options) (string, error) {
	p, err := named(o)
	if err != nil {
		return "", err
	}
	changes, err := o.changes()
	if err != nil {
		return "", err
	}
	whole := merge(changes, o)
	if err := whole.follows(p); err != nil {
		return "", err
	}
	files, err := p.files(whole)
	if err != nil {
		return "", err
	}
	if files[0].Direction == Both && o.Direction != Both {
		return "", fmt.Errorf("a file of %s holds both directions", o.Format)
	}
	files = slices.DeleteFunc(files, func(f File) bool { return f.Direction == opposite(o.Direction) })
	if len(files) != 1 {
		return "", fmt.Errorf("this takes %d files (%s beside %s): name a folder", len(files), files[1].Path, files[0].Path)
	}
	return files[0].Text, nil
}

// opposite is the direction that is left out; up is meant where none is said.
func opposite(d Direction) Direction {
	if d == Down {
		return Up
	}
	return Down
}

// Folder renders what o selects as a file, or a pair of them, a migration. With
// a direction it is those files only.
func Folder(o Options) ([]File, error) {
	p, err := named(o)
	if err != nil {
		return nil, err
	}
	changes, err := o.changes()
	if err != nil {
		return nil, err
	}
	if err := changes[0].follows(p); err != nil {
		return nil, err
	}
	var all []File
	for _, c := range changes {
		files, err := p.files(c)
		if err != nil {
			return nil, err
		}
		if files[0].Direction == Both && o.Direction != Both {
			return nil, fmt.Errorf("a file of %s holds both directions", o.Format)
		}
		for _, f := range files {
			if o.Direction == Both || f.Direction == o.Direction {
				all = append(all, f)
			}
		}
	}
	return all, nil
}
