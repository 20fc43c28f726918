// Package migrations holds the SQL of the outbox: schema, table, publication
// and grants, as files that are split by the privilege that they need.
//
// It promises that each up file can be applied again without harm, drops nothing,
// and names every object with its schema; that the down file beside it drops
// exactly what it made and fails where somebody else's object depends on that
// (no CASCADE, no IF EXISTS); that a released file never changes;
// and that the SQL is the same for Postgres 14 to 18, which chooses for itself
// where versions differ. [Script] is the whole of it for any tool that runs
// SQL, such as psql or another migration tool, or for a test:
//
//	sql, err := migrations.Script(migrations.Names{})
//	_, err = db.ExecContext(ctx, sql) // with a driver that takes several statements
//
// It does not connect to a database, and it does not make the replication slot:
// the relay does, because only the relay knows what lies before it.
//
// Everything in double quotes in a file is a name that can be chosen: "outbox"
// the schema, "outrider" the publication, "app", "relay" and "consumer" roles. The files are
// valid SQL as they stand.
package migrations

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

// Files holds the SQL files, with the default names.
//
//go:embed *.sql
var Files embed.FS

// Privilege says who can apply a migration.
type Privilege string

// Privileges of migrations.
const (
	Owner       Privilege = "owner"       // CREATE on the database, or the owner of the schema
	Publication Privilege = "publication" // the owner of the table, with CREATE on the database
	AppRole     Privilege = "app role"    // the owner of the tables; applied once for each role that writes events
	RelayRole   Privilege = "relay role"  // the owner of the tables; applied once for each role of a relay

	ConsumerRole Privilege = "consumer role" // the owner of the tables; applied once for each role that consumes with the inbox
)

// Migration is one file, with the file that takes it back.
type Migration struct {
	Version   int
	Name      string
	Privilege Privilege // up and down
	sql       string
	down      string // "" if there is no such file
}

// ForRole reports whether the migration grants to a role: such are applied for
// the roles that are named, and not recorded.
func (m Migration) ForRole() bool { return forRole(m.Privilege) }

func forRole(p Privilege) bool { return p == AppRole || p == RelayRole || p == ConsumerRole }

// String is the name of the file without its ending.
func (m Migration) String() string { return fmt.Sprintf("%03d_%s", m.Version, m.Name) }

// Checksum is the SHA-256, in hex, of the up file before names are put in, however its lines end.
func (m Migration) Checksum() string {
	sum := sha256.Sum256([]byte(m.sql))
	return hex.EncodeToString(sum[:])
}

// Names are the names that may differ from the default. A zero name is the default.
type Names struct {
	Schema      string // "outbox"
	Publication string // "outrider"
}

// Default names.
const (
	DefaultSchema      = "outbox"
	DefaultPublication = "outrider"
)

// name is what needs no quotes anywhere, so that it can stand in literals too;
// 63 bytes are what Postgres keeps of a name.
var name = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Normalize puts in the defaults. The error tells a name that is not made of
// a-z, 0-9 and _, is longer than 63 bytes, or is reserved by Postgres.
func (n Names) Normalize() (Names, error) {
	if n.Schema == "" {
		n.Schema = DefaultSchema
	}
	if n.Publication == "" {
		n.Publication = DefaultPublication
	}
	for _, given := range [][2]string{{"schema", n.Schema}, {"publication", n.Publication}} {
		if !name.MatchString(given[1]) {
			return n, fmt.Errorf("%s name %q: must match %s", given[0], given[1], name)
		}
	}
	if strings.HasPrefix(n.Schema, "pg_") || n.Schema == "information_schema" {
		return n, fmt.Errorf("schema name %q is reserved by Postgres", n.Schema)
	}
	return n, nil
}

// Role is an existing role that is to be granted what it needs.
type Role struct {
	Privilege Privilege // AppRole, RelayRole or ConsumerRole
	Name      string    // as Postgres shows it; any characters
}

func (r Role) valid() error {
	if !forRole(r.Privilege) {
		return fmt.Errorf("%q is not a kind of role", r.Privilege)
	}
	if r.Name == "" || len(r.Name) > 63 || strings.ContainsRune(r.Name, 0) {
		return fmt.Errorf("%s %q: a name has 1 to 63 bytes and no NUL", r.Privilege, r.Name)
	}
	return nil
}

// Endings of files.
const (
	upFile   = ".up.sql"
	downFile = ".down.sql"
)

// All returns the migrations in the order in which they are applied. It panics
// if the files were embedded in a form that is not ours.
func All() []Migration {
	entries, err := Files.ReadDir(".")
	if err != nil {
		panic("migrations: " + err.Error())
	}
	all := make([]Migration, 0, len(entries)/2)
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), upFile)
		if !ok {
			continue
		}
		m, err := read(stem)
		if err != nil {
			panic("migrations: " + err.Error())
		}
		all = append(all, m)
	}
	return all
}

// read makes a migration of the files that begin with stem.
func read(stem string) (Migration, error) {
	text, err := Files.ReadFile(stem + upFile)
	if err != nil {
		return Migration{}, err
	}
	m, err := parse(stem+upFile, unixLines(text))
	if err != nil {
		return Migration{}, err
	}
	text, err = Files.ReadFile(stem + downFile)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	m.down = unixLines(text)
	if first, _, _ := strings.Cut(m.down, "\n"); err == nil && first != privilegeLine+string(m.Privilege) {
		err = fmt.Errorf("%s: its first line names another privilege than %s", stem+downFile, stem+upFile)
	}
	return m, err
}

func unixLines(text []byte) string { return strings.ReplaceAll(string(text), "\r\n", "\n") }

// privilegeLine is how each file begins.
const privilegeLine = "-- privilege: "

func parse(file, text string) (Migration, error) {
	number, rest, _ := strings.Cut(strings.TrimSuffix(file, upFile), "_")
	version, err := strconv.Atoi(number)
	if err != nil || rest == "" {
		return Migration{}, fmt.Errorf("%s: want NNN_name.up.sql", file)
	}
	first, _, _ := strings.Cut(text, "\n")
	m := Migration{Version: version, Name: rest, Privilege: Privilege(strings.TrimPrefix(first, privilegeLine)), sql: text}
	switch m.Privilege {
	case Owner, Publication, AppRole, RelayRole, ConsumerRole:
		return m, nil
	default:
	}
	return m, fmt.Errorf("%s: its first line names no privilege", file)
}
