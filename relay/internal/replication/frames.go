package replication

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// FrameKind tells the frames of a stream apart.
type FrameKind int

// Kinds of frames.
const (
	FrameWAL       FrameKind = iota // XLogData: Data is a message of the plugin
	FrameKeepalive                  // Primary keepalive
	FrameNotice                     // NoticeResponse beside the stream
)

// Frame is one message of the stream.
type Frame struct {
	Kind           FrameKind
	WALEnd         LSN            // keepalive: everything before was sent; WAL: of the change, 0 for relations
	ReplyRequested bool           // keepalive only
	Data           []byte         // WAL only; valid until the next Receive
	Notice         *pgconn.Notice // notice only
}

// ErrEnded means that the server ended the stream in order.
var ErrEnded = errors.New("the server ended the stream")

var errProtocol = errors.New("protocol violation by the server")

// maxMessage is the longest message taken: Postgres builds none above 1 GiB.
const maxMessage = 1<<30 + 64<<10

// header is type byte and length of a message.
const header = 5

// IsTimeout reports whether err is a read deadline that has passed. The
// connection is as good as before, also in the middle of a message.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Receive returns the next frame. Errors: [IsTimeout]; *pgconn.PgError as the
// server sent it; [ErrEnded]; anything else means that the connection is lost.
func (c *Conn) Receive() (Frame, error) {
	for {
		kind, body, err := c.frames.next()
		if err != nil {
			if !IsTimeout(err) {
				return Frame{}, fmt.Errorf("receive: %w", err)
			}
			return Frame{}, err
		}
		if kind != 'S' { // ParameterStatus may come at any time
			return parseFrame(kind, body)
		}
	}
}

func parseFrame(kind byte, body []byte) (Frame, error) {
	switch kind {
	case 'd':
		return parseCopyData(body)
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(body); err != nil {
			return Frame{}, fmt.Errorf("%w: error response: %w", errProtocol, err)
		}
		return Frame{}, pgconn.ErrorResponseToPgError(&e)
	case 'N':
		var n pgproto3.NoticeResponse
		if err := n.Decode(body); err != nil {
			return Frame{}, fmt.Errorf("%w: notice: %w", errProtocol, err)
		}
		notice := pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(&n))
		return Frame{Kind: FrameNotice, Notice: (*pgconn.Notice)(notice)}, nil
	case 'c', 'C', 'Z':
		return Frame{}, ErrEnded
	}
	return Frame{}, fmt.Errorf("%w: message type %q inside the stream", errProtocol, kind)
}

func parseCopyData(b []byte) (Frame, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w': // start, end, time, then the plugin's message
		return Frame{Kind: FrameWAL, WALEnd: LSN(binary.BigEndian.Uint64(b[9:])), Data: b[25:]}, nil
	case len(b) == 18 && b[0] == 'k': // end, time, reply requested
		return Frame{Kind: FrameKeepalive, WALEnd: LSN(binary.BigEndian.Uint64(b[1:])), ReplyRequested: b[17] == 1}, nil
	case len(b) == 0:
		return Frame{}, fmt.Errorf("%w: empty copy data", errProtocol)
	}
	return Frame{}, fmt.Errorf("%w: copy data of kind %q with %d bytes", errProtocol, b[0], len(b))
}

// frames cuts a byte stream into messages. A message that fits the buffer is
// handed out in place; a longer one is gathered in large, which grows as bytes
// arrive. Either way a read may fail with a deadline and be tried again.
type frames struct {
	src   *bufio.Reader
	limit int
	used  int    // bytes in the buffer that the last message took
	large []byte // what has arrived of a message longer than the buffer
	want  int    // its full length; 0: none is under way
}

// next returns type and body of the next message; body is valid until the next call.
func (f *frames) next() (kind byte, body []byte, err error) {
	if f.used > 0 {
		if _, err := f.src.Discard(f.used); err != nil {
			return 0, nil, err
		}
		f.used = 0
	}
	if f.want == 0 {
		head, err := f.src.Peek(header)
		if err != nil {
			return 0, nil, noEOF(err)
		}
		length := int64(binary.BigEndian.Uint32(head[1:])) + 1 // the length counts itself, not the type
		if length < header || length > int64(f.limit) {
			return 0, nil, fmt.Errorf("%w: message of %d bytes", errProtocol, length)
		}
		if int(length) <= f.src.Size() {
			m, err := f.src.Peek(int(length))
			if err != nil {
				return 0, nil, noEOF(err)
			}
			f.used = int(length)
			return m[0], m[header:], nil
		}
		f.large, f.want = nil, int(length)
	}
	if err := f.gather(); err != nil {
		return 0, nil, noEOF(err)
	}
	m := f.large
	f.large, f.want = nil, 0
	return m[0], m[header:], nil
}

// ready reports whether another whole message is in the buffer.
func (f *frames) ready() bool {
	left := f.src.Buffered() - f.used
	if f.want > 0 || left < header {
		return false
	}
	b, err := f.src.Peek(f.used + header) // reads nothing: it is there
	return err == nil && int64(binary.BigEndian.Uint32(b[f.used+1:]))+1 <= int64(left)
}

// gather reads what is missing of a long message.
func (f *frames) gather() error {
	for len(f.large) < f.want {
		if len(f.large) == cap(f.large) { // double, but not beyond the message
			room := min(max(2*cap(f.large), f.src.Size()), f.want)
			f.large = append(make([]byte, 0, room), f.large...)
		}
		n, err := f.src.Read(f.large[len(f.large):min(cap(f.large), f.want)])
		f.large = f.large[:len(f.large)+n]
		if err != nil {
			return err
		}
	}
	return nil
}

// noEOF: a stream has no end but the ones that are said.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// oneMessage lets a reader see at most one message of the protocol per Read, so
// that it cannot swallow the beginning of the stream.
type oneMessage struct {
	src  *bufio.Reader
	left int64
}

func (o *oneMessage) Read(p []byte) (int, error) {
	if o.left == 0 {
		head, err := o.src.Peek(header)
		if err != nil {
			return 0, err
		}
		o.left = int64(binary.BigEndian.Uint32(head[1:])) + 1
	}
	n, err := o.src.Read(p[:min(int64(len(p)), o.left)])
	o.left -= int64(n)
	return n, err
}
