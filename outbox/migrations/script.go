package migrations

import (
	"errors"
	"fmt"
	"strings"
)

// SearchPath is set for the transaction in which a migration runs. Everything
// of ours is named with its schema; this keeps what somebody put before
// pg_catalog out of the definitions.
const SearchPath = "SET LOCAL search_path = pg_catalog, pg_temp;"

// Render returns the SQL of m under these names. For a migration of a role that
// is named default "app" or "relay", use [Migration.RenderRole].
func (m Migration) Render(n Names) (string, error) { return m.render(m.sql, n) }

// RenderDown returns the SQL that takes m back, without what [Migration.Forget]
// says. It loses the rows of the tables that m made.
func (m Migration) RenderDown(n Names) (string, error) {
	if m.down == "" {
		return "", m.noDown()
	}
	return m.render(m.down, n)
}

// RenderRole returns the SQL of m, which must be of r's privilege, for that role.
func (m Migration) RenderRole(n Names, r Role) (string, error) { return m.renderRole(m.sql, n, r) }

// RenderDownRole returns the SQL that takes from that role what m, which must be
// of r's privilege, gave it.
func (m Migration) RenderDownRole(n Names, r Role) (string, error) {
	if m.down == "" {
		return "", m.noDown()
	}
	return m.renderRole(m.down, n, r)
}

func (m Migration) noDown() error {
	return fmt.Errorf("%s cannot be taken back: it has no file %s%s", m, m, downFile)
}

func (m Migration) render(text string, n Names) (string, error) {
	n, err := n.Normalize()
	if err != nil {
		return "", err
	}
	if m.ForRole() {
		return "", fmt.Errorf("%s is for a role", m)
	}
	return n.replacer().Replace(text), nil
}

func (m Migration) renderRole(text string, n Names, r Role) (string, error) {
	n, err := n.Normalize()
	if err != nil {
		return "", err
	}
	if err := r.valid(); err != nil {
		return "", err
	}
	if m.Privilege != r.Privilege {
		return "", fmt.Errorf("%s is not for %s %q", m, r.Privilege, r.Name)
	}
	// Role names stand where only an identifier can, so quotes are doubled and that
	// is all. In the file the role is called by its kind.
	quoted := `"` + strings.ReplaceAll(r.Name, `"`, `""`) + `"`
	kind := `"` + strings.TrimSuffix(string(r.Privilege), " role") + `"`
	return n.replacer(kind, quoted).Replace(text), nil
}

func (n Names) replacer(more ...string) *strings.Replacer {
	return strings.NewReplacer(append(more,
		`"`+DefaultSchema+`"`, `"`+n.Schema+`"`,
		`"`+DefaultPublication+`"`, `"`+n.Publication+`"`)...)
}

// Record is the statement that notes m as applied.
func (m Migration) Record(n Names) (string, error) {
	n, err := n.Normalize()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`INSERT INTO "%s".schema_version (version, name, checksum) VALUES (%d, '%s', '%s') ON CONFLICT (version) DO NOTHING;`,
		n.Schema, m.Version, m.Name, m.Checksum()), nil
}

// Forget is the statement that takes the note of m back. It stands before the
// SQL of [Migration.RenderDown], which for the first migration drops the table
// of notes.
func (m Migration) Forget(n Names) (string, error) {
	n, err := n.Normalize()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`DELETE FROM "%s".schema_version WHERE version = %d;`, n.Schema, m.Version), nil
}

// Script is all migrations, and the grants of the given roles, as one
// transaction of plain SQL. With privileges given it holds those migrations
// only. It can be applied again at any time.
func Script(n Names, roles []Role, only ...Privilege) (string, error) {
	var b strings.Builder
	b.WriteString("-- Outbox of Outrider, for Postgres 14 to 18. One transaction; it may be run again.\n" +
		"-- The server needs wal_level = logical. Roles must exist. The replication slot is made by the relay.\n\n" +
		"BEGIN;\n" + SearchPath + "\n")
	written := 0
	for _, m := range All() {
		if !m.Wanted(only) {
			continue
		}
		texts, err := m.texts(n, roles)
		if err != nil {
			return "", err
		}
		for _, text := range texts {
			fmt.Fprintf(&b, "\n-- %s\n%s", m, text)
			written++
		}
	}
	if written == 0 {
		return "", errors.New("nothing to print: no migration has that privilege, or no role was named")
	}
	b.WriteString("\nCOMMIT;\n")
	return b.String(), nil
}

// texts is m once, with its record, or once for each of its roles.
func (m Migration) texts(n Names, roles []Role) ([]string, error) {
	var texts []string
	if !m.ForRole() {
		text, err := m.Render(n)
		if err != nil {
			return nil, err
		}
		record, err := m.Record(n)
		return append(texts, text+"\n"+record+"\n"), err
	}
	for _, r := range roles {
		if r.Privilege != m.Privilege {
			continue
		}
		text, err := m.RenderRole(n, r)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}
