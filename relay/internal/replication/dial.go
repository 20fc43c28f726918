package replication

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Config says where to and how.
type Config struct {
	URL              string        // libpq URL or keyword string, TLS modes and several hosts included
	ApplicationName  string        // shown in pg_stat_replication
	WALSenderTimeout time.Duration // asked of the server for this session
	Dial             pgconn.DialFunc
	Logger           *slog.Logger // notices before replication starts
}

// Conn is a connection in replication mode.
type Conn struct {
	pg       *pgconn.PgConn
	socket   net.Conn      // below TLS nothing else: reads and writes of the protocol
	reader   *bufio.Reader // takes over what pgconn has not read
	arrivals *arrivals     // below reader
	pid      uint32
	version  int
	timeout  time.Duration

	frames frames
	liveness
}

var (
	// ErrNoTimeout is returned by Dial if the session's wal_sender_timeout is 0:
	// then a server never lets go of a slot whose holder vanished.
	ErrNoTimeout = errors.New("wal_sender_timeout is 0 for this session")
	errPooler    = errors.New("a pooler refuses the replication connection or its options; the server's own address is needed")
	errSlotName  = errors.New("a slot is named by a-z, 0-9 and _, 63 at most")
)

// bufferSize is what one read from the socket may bring.
const bufferSize = 256 << 10

// maxAnswer bounds what a server may announce before the stream; pgconn
// allocates it at once. The longest is a timeline's history, 50 bytes a failover.
const maxAnswer = 16 << 20

// sessionSettings fix how values look, and lift limits that would end slot
// creation, which may have to wait long for other transactions.
//
//nolint:gochecknoglobals // a table that nobody changes
var sessionSettings = map[string]string{
	"datestyle": "ISO", "intervalstyle": "postgres", "timezone": "UTC", "extra_float_digits": "3",
	"bytea_output": "hex", "client_encoding": "UTF8", "lock_timeout": "0", "statement_timeout": "0",
}

// Dial connects. A refusal comes as *pgconn.PgError; see also [IsPooler] and [ErrNoTimeout].
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{}
	parsed, err := pgconn.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("the address cannot be parsed") // the error of pgx repeats parts of it
	}
	maps.Copy(parsed.RuntimeParams, sessionSettings)
	parsed.RuntimeParams["replication"] = "database"
	parsed.RuntimeParams["application_name"] = cfg.ApplicationName
	// As an option of the command line: a walsender reads its timeout before it would read a SET.
	// Behind those of the URL: the last one counts.
	parsed.RuntimeParams["options"] = strings.TrimSpace(fmt.Sprintf("%s -c wal_sender_timeout=%d",
		parsed.RuntimeParams["options"], cfg.WALSenderTimeout.Milliseconds()))
	parsed.MaxProtocolMessageBodyLen = maxAnswer
	if cfg.Dial != nil {
		parsed.DialFunc = cfg.Dial
	}
	parsed.DialFunc = watched(parsed.DialFunc, cfg.WALSenderTimeout)
	if cfg.Logger != nil {
		parsed.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			cfg.Logger.Warn("notice from the replication connection", "sqlstate", n.Code, "notice", n.Message)
		}
	}
	// pgconn must not read past the answer to START_REPLICATION: what follows is ours.
	parsed.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.arrivals = &arrivals{src: r}
		c.reader = bufio.NewReaderSize(c.arrivals, bufferSize)
		return pgproto3.NewFrontend(&oneMessage{src: c.reader}, w)
	}
	if c.pg, err = pgconn.ConnectConfig(ctx, parsed); err != nil {
		return nil, refusal(err)
	}
	if err := c.learn(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// learn asks for what the caller must know of the session. BackendKeyData will
// not do for the pid: behind a pooler it is the pooler's.
func (c *Conn) learn(ctx context.Context) error {
	pid, err := c.value(ctx, "SELECT pg_catalog.pg_backend_pid()")
	if err != nil {
		return err
	}
	version, err := c.value(ctx, "SHOW server_version_num")
	if err != nil {
		return err
	}
	timeout, err := c.value(ctx, "SHOW wal_sender_timeout")
	if err != nil {
		return err
	}
	p, err := strconv.ParseUint(pid, 10, 32)
	if err != nil {
		return fmt.Errorf("backend pid: %w", err)
	}
	c.pid = uint32(p)
	if c.version, err = strconv.Atoi(version); err != nil {
		return fmt.Errorf("server version: %w", err)
	}
	if c.timeout, err = parseTimeout(timeout); err != nil {
		return err
	}
	if c.timeout == 0 {
		return ErrNoTimeout
	}
	return nil
}

// timeoutForm is a time as the server prints it.
var timeoutForm = regexp.MustCompile(`^(\d+)(ms|s|min|h|d|)$`)

// parseTimeout reads a time as SHOW prints it; without a unit it is milliseconds.
func parseTimeout(s string) (time.Duration, error) {
	m := timeoutForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("wal_sender_timeout %q is no time", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 32) // the server keeps it as 32 bits of milliseconds
	if err != nil {
		return 0, fmt.Errorf("wal_sender_timeout: %w", err)
	}
	unit := map[string]time.Duration{"": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	return time.Duration(n) * unit[m[2]], nil
}

// refusal marks how poolers answer to a startup that asks for replication or
// brings options: PgBouncer with 08P01 (protocol_violation), RDS Proxy with
// 0A000 (feature_not_supported). Postgres does so only to a startup that is
// broken or of another protocol. Behind the handshake these codes mean other
// things, hence the mark.
func refusal(err error) error {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok && (pe.Code == "08P01" || pe.Code == "0A000") {
		return fmt.Errorf("%w: %w", errPooler, err)
	}
	return err
}

// IsPooler reports whether err is one of Dial's that comes from a pooler.
func IsPooler(err error) bool { return errors.Is(err, errPooler) }

// BackendPID is the pid of our walsender.
func (c *Conn) BackendPID() uint32 { return c.pid }

// ServerVersion is server_version_num, such as 150004.
func (c *Conn) ServerVersion() int { return c.version }

// WALSenderTimeout is wal_sender_timeout as the server has it for this session.
func (c *Conn) WALSenderTimeout() time.Duration { return c.timeout }

// Close closes without ceremony; see End for the polite way.
func (c *Conn) Close() {
	if c.pg == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.pg.Close(ctx)
}
