package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// database is the ordinary connection of a session: it reads catalogs, holds
// the advisory lock while a leadership is decided, and writes the progress row.
// One goroutine at a time uses it.
type database struct {
	*pgx.Conn
	relay   *Relay
	version int // server_version_num
}

const (
	connectTimeout   = 10 * time.Second
	statementTimeout = 5 * time.Second
)

// openDatabase connects. Settings: progress must not wait for a synchronous
// standby (what did not reach it is an older, true row), no statement of ours
// may hang, and the lock of a host that vanished must go away.
func (r *Relay) openDatabase(ctx context.Context) (*database, error) {
	url, err := r.cfg.DatabaseURL.Reveal()
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errDatabaseURL
	}
	cfg.RuntimeParams["application_name"] = "outrider/" + r.cfg.Instance
	cfg.OnNotice = nil
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, r.connectError(fmt.Errorf("connect: %w", err))
	}
	db := &database{Conn: conn, relay: r, version: serverVersion(conn)}
	_, err = conn.Exec(ctx, fmt.Sprintf(`SET synchronous_commit = local; SET statement_timeout = %d; SET lock_timeout = %[1]d;
SET idle_in_transaction_session_timeout = '1min'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3`, statementTimeout.Milliseconds()))
	if err != nil {
		db.close()
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	// Servers on some platforms refuse it; then keep-alives alone must do.
	if _, err := conn.Exec(ctx, `SET client_connection_check_interval = '10s'`); err != nil && conn.IsClosed() {
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	return db, nil
}

// serverVersion is server_version_num, from the parameter that every server
// reports at the start, such as "17.11 (Debian 17.11-1)" or "18rc1".
func serverVersion(conn *pgx.Conn) int {
	major, rest, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
	n, _ := strconv.Atoi(leadingDigits(major))
	m, _ := strconv.Atoi(leadingDigits(rest))
	return n*10000 + m
}

func leadingDigits(s string) string {
	for i, c := range s {
		if c < '0' || c > '9' {
			return s[:i]
		}
	}
	return s
}

// unhurried is for short statements beside the stream: the end of ctx does not cut
// them short, which the server would log as an error.
func unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
}

func (db *database) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = db.Close(ctx)
}

// relays is the table of progress rows.
func (db *database) relays() string {
	return pgx.Identifier{db.relay.cfg.Schema, "relays"}.Sanitize()
}

// server is what there is to know of the server before a slot is taken.
type server struct {
	version     int
	systemID    string
	database    string
	inRecovery  bool
	walLevel    string
	segmentSize int64
	syncNames   string
	nextXID     uint64 // at least; 0 while in recovery
	started     string // when; a database can be set back only while its server is down
}

func (db *database) server(ctx context.Context) (s server, err error) {
	var nextXID string
	err = db.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, (SELECT system_identifier::text FROM pg_control_system()),
current_database(), pg_is_in_recovery(), current_setting('wal_level'),
(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'), current_setting('synchronous_standby_names'),
CASE WHEN pg_is_in_recovery() THEN '0' ELSE pg_snapshot_xmax(pg_current_snapshot())::text END, pg_postmaster_start_time()::text`).
		Scan(&s.version, &s.systemID, &s.database, &s.inRecovery, &s.walLevel, &s.segmentSize, &s.syncNames, &nextXID, &s.started)
	if err != nil {
		return s, db.relay.statementError("look at the server", err)
	}
	if s.nextXID, err = strconv.ParseUint(nextXID, 10, 64); err != nil {
		return s, fmt.Errorf("look at the server: %w", err)
	}
	return s, nil
}

// slotState is a row of pg_replication_slots. Its columns differ by version, so
// they are taken from the row as JSON.
type slotState struct {
	exists      bool
	ownDatabase string
	Type        string  `json:"slot_type"`
	Plugin      *string `json:"plugin"`
	Database    *string `json:"database"`
	Temporary   bool    `json:"temporary"`
	TwoPhase    bool    `json:"two_phase"`
	ActivePID   *int    `json:"active_pid"`
	WALStatus   *string `json:"wal_status"`
	Confirmed   *string `json:"confirmed_flush_lsn"`
	Synced      bool    `json:"synced"`
	Restart     *string `json:"restart_lsn"`
	holder      string
}

func (db *database) slot(ctx context.Context) (s slotState, err error) {
	var name *string
	err = db.QueryRow(ctx, `SELECT to_jsonb(s), current_database(), (SELECT application_name FROM pg_stat_activity WHERE pid = s.active_pid)
FROM pg_replication_slots s WHERE slot_name = $1`, db.relay.cfg.Slot).Scan(&s, &s.ownDatabase, &name)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotState{}, nil
	}
	if err != nil {
		return s, db.relay.statementError("look at the slot", err)
	}
	s.exists = true
	if name != nil {
		s.holder = *name
	}
	return s, nil
}

// mismatch says why the slot cannot be ours; "" if it can. A held slot of
// another database answers START_REPLICATION like one held by a fellow relay,
// so this must be asked before calling oneself a standby.
func (s slotState) mismatch() string {
	switch {
	case s.Type != "logical":
		return "a " + s.Type + " slot, not a logical one"
	case s.Database == nil || *s.Database != s.ownDatabase:
		return fmt.Sprintf("of database %q, while the outbox is in %q", deref(s.Database), s.ownDatabase)
	case deref(s.Plugin) != "pgoutput":
		return fmt.Sprintf("of plugin %q, not of pgoutput", deref(s.Plugin))
	case s.Temporary:
		return "temporary"
	case s.TwoPhase:
		return "made for two-phase decoding"
	}
	return ""
}

// lost is decided by the view, never by an SQLSTATE: 55000 also means "being
// synchronized" and "of another database".
func (s slotState) lost() bool { return deref(s.WALStatus) == "lost" }

// confirmed is confirmed_flush_lsn; 0 if there is none.
func (s slotState) confirmed() (LSN, error) {
	if s.Confirmed == nil {
		return 0, nil
	}
	return parseLSN(*s.Confirmed)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// lockKey of the advisory lock under which a leadership is decided.
const lockKey = `hashtextextended('outrider leadership ' || $1, 0)`

// lock takes the session advisory lock if it is free. Waiting in
// pg_advisory_lock would hold back xmin, so nobody waits there.
func (db *database) lock(ctx context.Context) (ok bool, err error) {
	err = db.QueryRow(ctx, `SELECT pg_try_advisory_lock(`+lockKey+`)`, db.relay.cfg.Slot).Scan(&ok)
	return ok, err
}

func (db *database) unlock(ctx context.Context) error {
	_, err := db.Exec(ctx, `SELECT pg_advisory_unlock(`+lockKey+`)`, db.relay.cfg.Slot)
	return err
}

// publication checks that the publication brings inserts of the outbox table.
func (db *database) publication(ctx context.Context, version int) error {
	r := db.relay
	schema, table, _ := splitTable(r.cfg.Table)
	var insert, holds bool
	err := db.QueryRow(ctx, `SELECT p.pubinsert, EXISTS (SELECT FROM pg_publication_tables t
 WHERE t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3) FROM pg_publication p WHERE p.pubname = $1`,
		r.cfg.Publication, schema, table).Scan(&insert, &holds)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return r.publicationMissing(version)
	case err != nil:
		return r.statementError("look at the publication", err)
	case !holds:
		return r.publicationLacksTable(version)
	case !insert:
		return r.publicationWithoutInserts()
	}
	return nil
}

// blockers names the transactions that slot creation waits for: every one with
// an xid in the whole cluster, prepared ones too, which pg_stat_activity does
// not show.
func (db *database) blockers(ctx context.Context) (string, error) {
	rows, err := db.Query(ctx, `SELECT 'pid ' || pid || ' (' || coalesce(datname, '') || ', ' || coalesce(application_name, '') || ', since ' || coalesce(xact_start::text, '?') || ')'
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL SELECT 'prepared transaction ' || gid || ' (' || database || ', since ' || prepared || ')' FROM pg_prepared_xacts LIMIT 5`)
	if err != nil {
		return "", err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(names, "; "), err
}
