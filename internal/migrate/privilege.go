package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// SQLSTATEs of PostgreSQL, appendix A.
const (
	stateNoPrivilege     = "42501"
	stateUndefinedObject = "42704"
)

// PrivilegeError is a migration that the connected role may not apply.
type PrivilegeError struct {
	Migration string // name of the file
	Need      string // what is missing, in words
	SQL       string // what an administrator can do about it; "" if another role must be taken
	Err       error
}

// Error implements error.
func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("apply %s: %v; it needs %s", e.Migration, e.Err, e.Need)
}

// Unwrap returns the error of the server.
func (e *PrivilegeError) Unwrap() error { return e.Err }

// explain says which file failed, and what would help where that is known.
func explain(ctx context.Context, conn *pgx.Conn, m migrations.Migration, n migrations.Names, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
	case server.Code == stateNoPrivilege:
		return missingPrivilege(ctx, conn, m, n, err)
	case server.Code == stateUndefinedObject && (m.Privilege == migrations.AppRole || m.Privilege == migrations.ConsumerRole):
		return fmt.Errorf("apply %s: %w; roles are not created here: CREATE ROLE ... LOGIN", m, err)
	case server.Code == stateUndefinedObject && m.Privilege == migrations.RelayRole:
		return fmt.Errorf("apply %s: %w; roles are not created here: CREATE ROLE ... LOGIN REPLICATION", m, err)
	case server.Hint != "":
		return fmt.Errorf("apply %s: %w; %s", m, err, server.Hint)
	}
	return fmt.Errorf("apply %s: %w", m, err)
}

// missingPrivilege tells what m needs in this database and this role lacks.
func missingPrivilege(ctx context.Context, conn *pgx.Conn, m migrations.Migration, n migrations.Names, cause error) error {
	e := &PrivilegeError{Migration: m.String(), Err: cause}
	var database, user, owner string
	err := conn.QueryRow(ctx, `SELECT current_database(), current_user,
coalesce((SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = $1), '')`, n.Schema).Scan(&database, &user, &owner)
	if err != nil {
		e.Need = "privilege: " + string(m.Privilege)
		return e
	}
	grant := fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s;", pgx.Identifier{database}.Sanitize(), pgx.Identifier{user}.Sanitize())
	switch {
	case m.Privilege == migrations.Owner && owner == "":
		e.Need, e.SQL = "CREATE on the database", grant
	case m.Privilege == migrations.Publication && owner == user:
		e.Need, e.SQL = "the owner of the table, with CREATE on the database", grant
	default:
		e.Need = fmt.Sprintf("the owner of schema %s and its tables, role %q; connected is role %q", n.Schema, owner, user)
	}
	return e
}
