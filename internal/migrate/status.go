package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// State is how far one migration is.
type State string

// States of a migration.
const (
	Applied State = "applied" // recorded, and its objects are as it made them
	Missing State = "missing" // not recorded, or objects of it are gone
	Drifted State = "drifted" // recorded with another checksum, or objects of it were altered
	ByRole  State = "by role" // grants; applied for the roles that are named, and not recorded
)

// Step is a migration and its state in a database.
type Step struct {
	migrations.Migration
	State     State
	AppliedAt time.Time // zero if it is not recorded
	Problems  []string  // objects that are gone or were altered

	recorded string // checksum
}

// Status is how far a database is.
type Status struct {
	Steps []Step
	Newer []string // recorded migrations that this program does not know: a newer one was here
}

// UpToDate reports whether every migration that is recorded at all is applied.
func (s Status) UpToDate() bool {
	for _, step := range s.Steps {
		if step.State == Missing || step.State == Drifted {
			return false
		}
	}
	return true
}

func (s Status) drift() error {
	for _, step := range s.Steps {
		if step.recorded != "" && step.recorded != step.Checksum() {
			return fmt.Errorf("%w: %s, recorded %s with checksum %.12s, here %.12s; a released file never changes, so nothing is applied on top of it",
				ErrDrifted, step, step.AppliedAt.UTC().Format(time.RFC3339), step.recorded, step.Checksum())
		}
	}
	return nil
}

type record struct {
	Version  int
	Name     string
	Checksum string
	At       time.Time
}

// Check reads how far the database is. It writes nothing and needs no privilege
// but SELECT on schema_version, once that table is there.
func Check(ctx context.Context, conn *pgx.Conn, names migrations.Names) (Status, error) {
	var status Status
	names, err := names.Normalize()
	if err != nil {
		return status, err
	}
	records, err := readRecords(ctx, conn, names.Schema)
	if err != nil {
		return status, err
	}
	objects, err := readCatalog(ctx, conn, names)
	if err != nil {
		return status, err
	}
	later := ""
	for _, m := range slices.Backward(migrations.All()) {
		step := Step{Migration: m, State: ByRole}
		if !m.ForRole() {
			text, err := m.Render(names)
			if err != nil {
				return status, err
			}
			step.judge(records[m.Version], file{text, later}, objects)
			if step.recorded != "" {
				later += text
			}
		}
		delete(records, m.Version)
		status.Steps = append(status.Steps, step)
	}
	slices.Reverse(status.Steps)
	for _, r := range records {
		status.Newer = append(status.Newer, fmt.Sprintf("%03d_%s", r.Version, r.Name))
	}
	return status, nil
}

// judge decides the state. A step is applied again only when it is missing, so
// what is gone weighs more than what was altered.
func (s *Step) judge(r record, f file, objects map[string]object) {
	s.AppliedAt, s.recorded = r.At, r.Checksum
	gone, altered := f.compare(objects)
	s.Problems = slices.Concat(gone, altered)
	switch {
	case r.Checksum == "":
		s.State = Missing
		s.Problems = nil // all of it is missing, or made by another tool: applying tells
	case r.Checksum != s.Checksum():
		s.State = Drifted
	case len(gone) > 0:
		s.State = Missing
	case len(altered) > 0:
		s.State = Drifted
	default:
		s.State = Applied
	}
}

func readRecords(ctx context.Context, conn *pgx.Conn, schema string) (map[int]record, error) {
	var exists bool
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'schema_version')`, schema).Scan(&exists)
	if err != nil {
		return nil, fmt.Errorf("look for recorded migrations: %w", err)
	}
	records := map[int]record{}
	if !exists {
		return records, nil
	}
	rows, err := conn.Query(ctx, `SELECT version, name, checksum, applied_at FROM `+pgx.Identifier{schema, "schema_version"}.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("read recorded migrations: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[record])
	if err != nil {
		return nil, fmt.Errorf("read recorded migrations: %w", err)
	}
	for _, r := range list {
		records[r.Version] = r
	}
	return records, nil
}

// ErrNotUpToDate means that [Status.UpToDate] is false.
var ErrNotUpToDate = errors.New("the database is not up to date")

// String is one line a migration, with its problems below.
func (s Status) String() string {
	var b strings.Builder
	for _, step := range s.Steps {
		fmt.Fprintf(&b, "%-20s %-12s %s", step, step.Privilege, step.State)
		if !step.AppliedAt.IsZero() {
			fmt.Fprintf(&b, " (recorded %s)", step.AppliedAt.UTC().Format(time.RFC3339))
		}
		if step.recorded != "" && step.recorded != step.Checksum() {
			b.WriteString("\n  recorded with another checksum")
		}
		b.WriteString("\n")
		for _, p := range step.Problems {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	for _, n := range s.Newer {
		fmt.Fprintf(&b, "%-20s applied by a newer program\n", n)
	}
	return b.String()
}
