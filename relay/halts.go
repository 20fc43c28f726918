package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What stops a relay until somebody acts, each with the way out. A test causes
// every one of these, runs what the hint prints, and sees the relay go on.

// halt makes an error for reason with its ways out.
func halt(reason string, err error, hints ...Hint) error {
	return &Halt{Reason: reason, Err: err, Hints: hints}
}

// SQLSTATEs that the relay tells apart (PostgreSQL documentation, appendix A).
const (
	stateUndefinedObject    = "42704" // slot or publication does not exist
	stateObjectInUse        = "55006" // slot is held by another
	stateNotInPrerequisite  = "55000" // wal_level, a lost slot, a slot being synchronized
	stateConfigurationLimit = "53400" // max_replication_slots
	stateNoPrivilege        = "42501"
	stateBadPassword        = "28P01"
	stateBadAuthorization   = "28000" // also: no pg_hba.conf entry
	stateNoDatabase         = "3D000"
	stateAdminShutdown      = "57P01"
	stateCrashShutdown      = "57P02"
	stateCannotConnectNow   = "57P03"
	stateTooManyConnections = "53300"
)

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// connectError sorts what a connection attempt ended with. What it does not know is retried.
func (r *Relay) connectError(err error) error {
	switch sqlState(err) {
	case stateBadPassword, stateBadAuthorization:
		return halt("authentication", fmt.Errorf("the database refuses the login: %w", err),
			Hint{Say: "correct user and password in OUTRIDER_DATABASE_URL (or the file of OUTRIDER_DATABASE_URL_FILE, which is read again at each attempt), or the server's pg_hba.conf"})
	case stateNoDatabase:
		return halt("database_missing", fmt.Errorf("the database does not exist: %w", err),
			Hint{Say: "correct the database in OUTRIDER_DATABASE_URL"})
	case stateNoPrivilege:
		return halt("replication_privilege", fmt.Errorf("the role may not replicate: %w", err),
			Hint{Say: "give the role the attribute, as a superuser", SQL: "ALTER ROLE " + r.quotedUser() + " REPLICATION;"},
			Hint{Say: "on RDS and Aurora it is a role: grant rds_replication to it"})
	}
	return tlsError(err)
}

// tlsError marks what no retry heals of a handshake: a certificate that one of the two does not accept.
func tlsError(err error) error {
	if verification, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		hint := Hint{Say: "trust the authority that signed the server's certificate: sslrootcert=<path> in OUTRIDER_DATABASE_URL; the file is read at each connect"}
		if _, ok := errors.AsType[x509.HostnameError](verification.Err); ok {
			hint = Hint{Say: "name the host in OUTRIDER_DATABASE_URL as in the server's certificate"}
		}
		return halt("tls", err, hint)
	}
	for inner := err; ; {
		op, ok := errors.AsType[*net.OpError](inner)
		if !ok {
			return err
		}
		if op.Op == "remote error" { // an alert, as crypto/tls returns it
			return halt("tls", err, Hint{Say: "the server refuses the handshake; if it asks for a client certificate, show one it trusts: sslcert=<path> and sslkey=<path> in OUTRIDER_DATABASE_URL"})
		}
		inner = op.Err
	}
}

// statementError sorts the error of a statement on the relay's own tables.
func (r *Relay) statementError(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if sqlState(err) == stateNoPrivilege {
		schema := pgx.Identifier{r.cfg.Schema}.Sanitize()
		return halt("grants", err, Hint{Say: "grant the relay's role what it needs, as the owner of the tables", SQL: fmt.Sprintf(
			"GRANT USAGE ON SCHEMA %[1]s TO %[2]s;\nGRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s.relays TO %[2]s;\nGRANT SELECT, DELETE, UPDATE (tx) ON %[3]s TO %[2]s;\nGRANT SELECT ON %[1]s.settings TO %[2]s;",
			schema, r.quotedUser(), r.tableSQL())})
	}
	return err
}

func (r *Relay) noSchema(what string) error {
	return &waitError{reason: "schema_missing", err: &Halt{
		Reason: "schema_missing",
		Err:    fmt.Errorf("%s does not exist in the database", what),
		Hints:  []Hint{{Say: "apply the migration with a role that may create it", Shell: "outrider migrate up"}},
	}}
}

func (r *Relay) walLevel(level string) error {
	return halt("wal_level", fmt.Errorf("wal_level is %q; logical decoding needs \"logical\"", level),
		Hint{Say: "set it and restart the server", SQL: "ALTER SYSTEM SET wal_level = 'logical';"})
}

func (r *Relay) slotNotOurs(s slotState) error {
	return halt("slot_not_ours", fmt.Errorf("replication slot %q is %s", r.cfg.Slot, s.mismatch()),
		Hint{Say: "slots are named per server: take another name for this relay", Env: "OUTRIDER_NAME=" + suggestName(s.ownDatabase+"_outbox")})
}

func (r *Relay) slotWithoutRow(c *candidacy) error {
	hints := []Hint{{Say: "if nothing else uses the slot, drop it; the relay makes its own", SQL: "SELECT pg_drop_replication_slot(" + literal(r.cfg.Slot) + ");"}}
	if c.keeps {
		hints = append(hints, Hint{Say: "the same by the relay, which publishes what stands in the table first", Env: "OUTRIDER_ADOPT_SLOT=backfill"})
	}
	hints = append(hints,
		Hint{Say: "if it was taken over from another relay that has published everything before it", Env: "OUTRIDER_ADOPT_SLOT=stream"},
		Hint{Say: "if it belongs to something else, take another name", Env: "OUTRIDER_NAME=" + suggestName(r.cfg.Name+"_2")})
	return halt("slot_without_row", fmt.Errorf("replication slot %q exists, but no relay has noted what it stands for; what lies before it may never have been published", r.cfg.Slot), hints...)
}

// tableNotEmpty: a table that migrate did not make, without tx and seq.
func (r *Relay) tableNotEmpty() error {
	return halt("rows_before_slot", fmt.Errorf("%s holds rows that were committed before there was a slot, and lacks the columns tx and seq by which they could be published", r.cfg.Table),
		Hint{Say: "publish those rows by other means, or give up on them, and empty the table; the relay starts by itself then", SQL: "DELETE FROM " + r.tableSQL() + ";"})
}

// gap says that rows lie between what was published and what the stream will bring.
func (r *Relay) gap(c *candidacy, reason, token string, err error) error {
	accept := Hint{Say: "go on, although rows committed since may never be published", Env: "OUTRIDER_ACCEPT_GAP=" + token}
	if c.keeps {
		return halt(reason, fmt.Errorf("%w; rows committed after %s may be unpublished, and OUTRIDER_RECOVERY=halt", err, c.row.confirmed),
			Hint{Say: "publish them from the table", Env: "OUTRIDER_RECOVERY=recover"}, accept)
	}
	return halt(reason, fmt.Errorf("%w; events committed between %s and now are gone, as this table keeps no rows", err, c.row.confirmed), accept)
}

func (r *Relay) publicationMissing(version int) error {
	return halt("publication_missing", fmt.Errorf("publication %q does not exist", r.cfg.Publication),
		Hint{Say: "create it, as the owner of the table", SQL: fmt.Sprintf(
			"CREATE PUBLICATION %s FOR TABLE %s WITH (publish = 'insert', publish_via_partition_root = true);",
			pgx.Identifier{r.cfg.Publication}.Sanitize(), r.publishedTable(version))})
}

func (r *Relay) publicationLacksTable(version int) error {
	return halt("publication_lacks_table", fmt.Errorf("publication %q does not hold %s", r.cfg.Publication, r.cfg.Table),
		Hint{Say: "add the table, as its owner", SQL: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s;",
			pgx.Identifier{r.cfg.Publication}.Sanitize(), r.publishedTable(version))})
}

func (r *Relay) publicationWithoutInserts() error {
	return halt("publication_without_inserts", fmt.Errorf("publication %q does not publish inserts", r.cfg.Publication),
		Hint{Say: "let it publish inserts, and nothing else", SQL: fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert');",
			pgx.Identifier{r.cfg.Publication}.Sanitize())})
}

// columnsMissing: the rows in the log keep the names of their time, so what helps is to tell the relay the other name.
func (r *Relay) columnsMissing(err *errColumns) error {
	var hints []Hint
	for _, column := range err.missing {
		hints = append(hints, Hint{
			Say: "if column " + column + " was renamed, tell the relay the new name; it then reads rows under both",
			Env: "OUTRIDER_COLUMN_" + strings.ToUpper(column) + "=" + err.newcomer(),
		})
	}
	return halt("columns_missing", err, hints...)
}

// newcomer is the first column that is not one of the relay's.
func (e *errColumns) newcomer() string {
	for _, c := range e.found {
		if !nativeColumn(c) {
			return c
		}
	}
	return "<name>"
}

func nativeColumn(name string) bool {
	return slices.Contains(nativeColumns[:], name) || name == "created_at" || name == "seq" || name == "tx"
}

// publishedTable is the table with its column list where the server knows such (15 and later).
func (r *Relay) publishedTable(version int) string {
	if version < 150000 {
		return r.tableSQL()
	}
	return r.tableSQL() + " (" + strings.Join(nativeColumns[:], ", ") + ")"
}

func (r *Relay) tableSQL() string {
	schema, name, _ := splitTable(r.cfg.Table)
	return pgx.Identifier{schema, name}.Sanitize()
}

func (r *Relay) quotedUser() string {
	url, err := r.cfg.DatabaseURL.Reveal()
	if err != nil {
		return "<role>"
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return "<role>"
	}
	return pgx.Identifier{cfg.User}.Sanitize()
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// waitError is something that comes by itself or by somebody who does not know
// of the relay: a server, a schema. The relay waits and says so.
type waitError struct {
	reason string
	err    error
}

func (w *waitError) Error() string { return w.err.Error() }

// Unwrap shows the cause, but not its class: waiting is not halting.
func (w *waitError) Unwrap() error { return w.err }

// standbyError means that another relay has the slot.
type standbyError struct{ holder string }

func (s *standbyError) Error() string { return "the slot is held by " + s.holder }
