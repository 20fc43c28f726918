package replication

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

type Config struct {
	URL, ApplicationName string
	WALSenderTimeout     time.Duration
	Dial                 pgconn.DialFunc
	Logger               *slog.Logger
}
type Conn struct {
	pc      *pgconn.PgConn
	br      *bufio.Reader
	nc      net.Conn
	pid     uint32
	timeout time.Duration
	version int
	pending int
	last    time.Time
	next    time.Time
}
type System struct {
	ID       string
	Timeline int32
	XLogPos  pglogrepl.LSN
}
type CreatedSlot struct {
	ConsistentPoint pglogrepl.LSN
	Snapshot        string
}
type FrameKind int

const (
	FrameWAL FrameKind = iota
	FrameKeepalive
	FrameNotice
)

type Frame struct {
	Kind           FrameKind
	WALEnd         pglogrepl.LSN
	ReplyRequested bool
	Data           []byte
	Notice         *pgconn.Notice
}

var ErrNoTimeout, ErrEnded, ErrSilent = errors.New("no timeout"), errors.New("ended"), errors.New("silent")

type one struct {
	r    *bufio.Reader
	left int
}

func (o *one) Read(p []byte) (int, error) {
	if o.left == 0 {
		h, err := o.r.Peek(5)
		if err != nil {
			return 0, err
		}
		o.left = int(binary.BigEndian.Uint32(h[1:])) + 1
	}
	if len(p) > o.left {
		p = p[:o.left]
	}
	n, err := o.r.Read(p)
	o.left -= n
	return n, err
}

func Dial(ctx context.Context, c Config) (*Conn, error) {
	cfg, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["replication"] = "database"
	cfg.RuntimeParams["application_name"] = c.ApplicationName
	cfg.RuntimeParams["options"] = fmt.Sprintf("-c wal_sender_timeout=%d -c lock_timeout=0 -c statement_timeout=0", c.WALSenderTimeout.Milliseconds())
	conn := &Conn{}
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		conn.br = bufio.NewReaderSize(r, 256<<10)
		return pgproto3.NewFrontend(&one{r: conn.br}, w)
	}
	if conn.pc, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
		return nil, err
	}
	res, err := conn.pc.Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return nil, err
	}
	pid, _ := strconv.Atoi(string(res[0].Rows[0][0]))
	conn.pid = uint32(pid)
	conn.timeout = c.WALSenderTimeout
	res, err = conn.pc.Exec(ctx, "SHOW server_version_num").ReadAll()
	if err != nil {
		return nil, err
	}
	conn.version, _ = strconv.Atoi(string(res[0].Rows[0][0]))
	return conn, nil
}
func IsPooler(error) bool                       { return false }
func IsTimeout(err error) bool                  { return errors.Is(err, os.ErrDeadlineExceeded) }
func (c *Conn) BackendPID() uint32              { return c.pid }
func (c *Conn) WALSenderTimeout() time.Duration { return c.timeout }
func (c *Conn) IdentifySystem(ctx context.Context) (System, error) {
	s, err := pglogrepl.IdentifySystem(ctx, c.pc)
	return System{s.SystemID, s.Timeline, s.XLogPos}, err
}
func (c *Conn) TimelineHistory(ctx context.Context, t int32) (string, error) {
	if t == 1 {
		return "", nil
	}
	h, err := pglogrepl.TimelineHistory(ctx, c.pc, t)
	return string(h.Content), err
}
func (c *Conn) CreateSlot(ctx context.Context, name string, failover bool) (CreatedSlot, error) {
	sql := "CREATE_REPLICATION_SLOT " + name + " LOGICAL pgoutput EXPORT_SNAPSHOT"
	if c.version >= 170000 {
		sql = "CREATE_REPLICATION_SLOT " + name + " LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)"
	}
	r, err := pglogrepl.ParseCreateReplicationSlot(c.pc.Exec(ctx, sql))
	if err != nil {
		return CreatedSlot{}, err
	}
	lsn, err := pglogrepl.ParseLSN(r.ConsistentPoint)
	return CreatedSlot{lsn, r.SnapshotName}, err
}
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	return pglogrepl.DropReplicationSlot(ctx, c.pc, name, pglogrepl.DropReplicationSlotOptions{})
}
func (c *Conn) Start(ctx context.Context, slot, pub string, messages bool) error {
	err := pglogrepl.StartReplication(ctx, c.pc, slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names '\"" + pub + "\"'", "binary 'true'"}})
	c.nc = c.pc.Conn()
	c.last, c.next = time.Now(), time.Now()
	return err
}
func (c *Conn) Receive() (Frame, error) {
	if c.pending > 0 {
		c.br.Discard(c.pending)
		c.pending = 0
	}
	h, err := c.br.Peek(5)
	if err != nil {
		return Frame{}, err
	}
	l := int(binary.BigEndian.Uint32(h[1:])) + 1
	var m []byte
	if l <= c.br.Size() {
		if m, err = c.br.Peek(l); err != nil {
			return Frame{}, err
		}
		c.pending = l
	} else {
		m = make([]byte, l)
		c.nc.SetReadDeadline(time.Time{})
		if _, err := io.ReadFull(c.br, m); err != nil {
			return Frame{}, err
		}
	}
	c.last = time.Now()
	b := m[5:]
	switch m[0] {
	case 'd':
		if b[0] == 'k' {
			return Frame{Kind: FrameKeepalive, WALEnd: pglogrepl.LSN(binary.BigEndian.Uint64(b[1:])), ReplyRequested: b[17] == 1}, nil
		}
		return Frame{Kind: FrameWAL, WALEnd: pglogrepl.LSN(binary.BigEndian.Uint64(b[9:])), Data: b[25:]}, nil
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(b); err != nil {
			return Frame{}, err
		}
		return Frame{}, pgconn.ErrorResponseToPgError(&e)
	case 'N':
		var e pgproto3.NoticeResponse
		if err := e.Decode(b); err != nil {
			return Frame{}, err
		}
		return Frame{Kind: FrameNotice, Notice: (*pgconn.Notice)(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(&e)))}, nil
	}
	if strings.ContainsRune("cCZ", rune(m[0])) {
		return Frame{}, ErrEnded
	}
	return Frame{}, fmt.Errorf("unexpected %q", m[0])
}
func (c *Conn) Status(w, f pglogrepl.LSN, r bool) error {
	b := append(make([]byte, 0, 64), 'd', 0, 0, 0, 38, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(w))
	b = binary.BigEndian.AppendUint64(b, uint64(f))
	b = binary.BigEndian.AppendUint64(b, uint64(f))
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMicro()-946684800000000))
	if r {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.timeout))
	_, err := c.nc.Write(b)
	c.next = time.Now().Add(c.timeout / 3)
	return err
}
func (c *Conn) Tick(w, f pglogrepl.LSN, reading bool) error {
	if reading && time.Since(c.last) > c.timeout {
		return ErrSilent
	}
	if time.Now().Before(c.next) {
		return nil
	}
	return c.Status(w, f, reading && time.Since(c.last) > c.timeout/2)
}
func (c *Conn) NextTick() time.Time               { return c.next }
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }
func (c *Conn) Interrupt()                        { c.nc.SetReadDeadline(time.Unix(1, 0)) }
func (c *Conn) End(ctx context.Context) error     { return nil }
func (c *Conn) Close() {
	if c.pc != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.pc.Close(ctx)
	}
}
