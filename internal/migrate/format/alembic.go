package format

import (
	"fmt"
	"strings"
)

// alembic has both directions in a module of Python, which names the revision
// that it follows. A statement a call: some drivers take no more.
type alembic struct{}

func (alembic) chained() {}

func (alembic) files(c Change) ([]File, error) {
	up, err := pythonStatements(c.up(), "    ", "", alembicDDL)
	if err != nil {
		return nil, err
	}
	down, err := pythonStatements(c.down(), "    ", "", alembicDDL)
	if err != nil {
		return nil, err
	}
	after := "None"
	switch {
	case c.previous != nil:
		after = fmt.Sprintf("%q", revision(*c.previous))
	case c.after != "":
		after = fmt.Sprintf("%q", c.after)
	}
	return []File{{
		Path: fmt.Sprintf("%s_%s.py", revision(c), c.Name),
		Text: fmt.Sprintf(alembicModule, revision(c), after, up, down),
	}}, nil
}

// revision has at most 32 characters, as the column in which Alembic keeps it.
func revision(c Change) string { return fmt.Sprintf("outrider_%03d", c.Version) }

// alembicDDL writes a statement so that SQLAlchemy sends it as it is: text()
// would look for :parameters, and DDL only knows percent signs.
func alembicDDL(sql string) string {
	return "op.execute(sa.DDL(" + pythonString(strings.ReplaceAll(sql, "%", "%%")) + "))"
}

const alembicModule = `"""Outbox of Outrider, for Postgres 14 to 18."""

import sqlalchemy as sa
from alembic import op

revision = %q
down_revision = %s
branch_labels = None
depends_on = None


def upgrade() -> None:
%s

def downgrade() -> None:
%s`
