package replication

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// LSN is a position in the write-ahead log.
type LSN = pglogrepl.LSN

// System is what IDENTIFY_SYSTEM answers.
type System struct {
	ID       string
	Timeline int32
	XLogPos  LSN
}

// CreatedSlot is a new slot. The snapshot may be imported until the next command on the connection.
type CreatedSlot struct {
	ConsistentPoint LSN
	Snapshot        string
}

// IdentifySystem tells which server this is.
func (c *Conn) IdentifySystem(ctx context.Context) (System, error) {
	s, err := pglogrepl.IdentifySystem(ctx, c.pg)
	return System{ID: s.SystemID, Timeline: s.Timeline, XLogPos: s.XLogPos}, err
}

// TimelineHistory returns the history file of a timeline: from which timelines
// it descends and where it left them. The first timeline has none ("").
func (c *Conn) TimelineHistory(ctx context.Context, timeline int32) (string, error) {
	if timeline <= 1 { // no file: asking would put an ERROR into the server's log
		return "", nil
	}
	h, err := pglogrepl.TimelineHistory(ctx, c.pg, timeline)
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code == "58P01" { // undefined_file
		return "", nil
	}
	return string(h.Content), err
}

var slotRule = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// CreateSlot makes a logical slot for pgoutput and exports its snapshot. It
// waits for every transaction of the cluster that had an xid when it began.
// failover asks for a slot that standbys keep in step; servers before 17 know no such.
func (c *Conn) CreateSlot(ctx context.Context, name string, failover bool) (CreatedSlot, error) {
	if !slotRule.MatchString(name) {
		return CreatedSlot{}, errSlotName
	}
	how := "EXPORT_SNAPSHOT" // the keyword form, which all versions take
	if failover && c.version >= 170000 {
		how = "(SNAPSHOT 'export', FAILOVER true)"
	}
	r, err := pglogrepl.ParseCreateReplicationSlot(c.pg.Exec(ctx, "CREATE_REPLICATION_SLOT "+name+" LOGICAL pgoutput "+how))
	if err != nil {
		return CreatedSlot{}, err
	}
	lsn, err := pglogrepl.ParseLSN(r.ConsistentPoint)
	return CreatedSlot{ConsistentPoint: lsn, Snapshot: r.SnapshotName}, err
}

// DropSlot drops a slot that nobody holds.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	if !slotRule.MatchString(name) {
		return errSlotName
	}
	return pglogrepl.DropReplicationSlot(ctx, c.pg, name, pglogrepl.DropReplicationSlotOptions{})
}

// Start begins to stream, always from where the slot stands: Postgres takes a
// higher position as it is and skips what lies between. messages asks for
// logical messages too. From here on only Receive, Status, Tick, the deadlines,
// End and Close make sense; after an error only Close. A missing publication is
// no error here: it shows when the first change is decoded.
func (c *Conn) Start(ctx context.Context, slot, publication string, messages bool) error {
	if !slotRule.MatchString(slot) {
		return errSlotName
	}
	options := []string{"proto_version '1'", "publication_names " + publicationList(publication), "binary 'true'"}
	if messages {
		options = append(options, "messages 'true'")
	}
	err := pglogrepl.StartReplication(ctx, c.pg, slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: options})
	if err != nil {
		return err
	}
	c.socket = c.pg.Conn()
	c.frames = frames{src: c.reader, limit: maxMessage}
	c.liveness = newLiveness(c.timeout, time.Now())
	return nil
}

// publicationList is a string literal that holds a list of identifiers, of which there is one.
func publicationList(name string) string {
	identifier := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	return "'" + strings.ReplaceAll(identifier, "'", "''") + "'"
}

// value runs a query of one row and one column.
func (c *Conn) value(ctx context.Context, sql string) (string, error) {
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("%s: %w", sql, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return "", fmt.Errorf("%s: the answer is not one value", sql)
	}
	return string(results[0].Rows[0][0]), nil
}
