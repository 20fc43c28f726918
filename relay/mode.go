package relay

import (
	"context"
	"errors"
)

// prefix of the logical messages of a schema's stream; see migration stream.
const messagePrefix = "outrider."

// mode is how events live, as the settings of the outbox say; set_mode writes them.
type mode struct {
	readable bool // the table has tx and seq, so that a backlog can be read
	ours     bool // the table is the one that migrate makes
	appends  bool // somebody's word that rows stay until the relay deletes them
	since    LSN  // from where on that holds; below, there were rows that did not stay
	messages bool // events may come as logical messages, too
}

// keeps tells whether a recovery from the table misses nothing.
func (m mode) keeps(row *progressRow) bool {
	return m.readable && m.appends && (row == nil || row.confirmed >= m.since)
}

// errMode ends a session that began under another mode.
var errMode = errors.New("the mode of the outbox has changed")

// mode reads how events live. Settings that are missing, as in an installation
// that is older, say nothing.
func (db *database) mode(ctx context.Context) (m mode, err error) {
	r := db.relay
	err = db.QueryRow(ctx, `SELECT (SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass($1) AND NOT attisdropped
 AND (attname = 'tx' AND atttypid = 'xid8'::regtype OR attname = 'seq' AND atttypid = 'bigint'::regtype))`, r.tableSQL()).Scan(&m.readable)
	if err != nil {
		return m, r.statementError("look at the columns", err)
	}
	m.ours = r.tableSQL() == quote(r.cfg.Schema, "events")
	var name, since string
	err = db.QueryRow(ctx, `SELECT coalesce(max(value) FILTER (WHERE name = 'mode'), ''), coalesce(max(value) FILTER (WHERE name = 'kept_since'), '0/0'),
 coalesce(bool_or(value = 'true') FILTER (WHERE name = 'messages'), false) FROM `+quote(r.cfg.Schema, "settings")).Scan(&name, &since, &m.messages)
	switch {
	case sqlState(err) == stateUndefinedTable && !m.ours: // a progress row beside somebody else's table
	case err != nil:
		return m, r.statementError("read the settings of the outbox", err)
	}
	if m.since, err = parseLSN(since); err != nil {
		return m, err
	}
	m.appends = r.cfg.TableKeepsRows || m.ours && name == "append"
	return m, nil
}

// contract is the version of the tables that a relay of this mode writes.
func (m mode) contract() int {
	if m.messages {
		return contractMessages
	}
	return contract
}
