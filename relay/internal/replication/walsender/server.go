package walsender

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// URL is an address for connections whose dial function is [Server.Dial].
const URL = "postgres://tester@127.0.0.1:5432/tester?sslmode=disable"

// PID is the backend's pid as a query tells it; BackendKeyData says another one,
// as behind a pooler.
const PID = 4711

// SystemID is what IDENTIFY_SYSTEM answers.
const SystemID = "7000000000000000001"

// Status is a standby status update as it arrived.
type Status struct {
	Write, Flush, Apply uint64
	Reply               bool // the client asks for a keepalive
	At                  time.Time
	Clock               uint64 // the client's, in microseconds since 2000-01-01
}

// Server is a fake for one connection at a time. Its methods may be called from
// any goroutine.
type Server struct {
	answers map[string]string
	refusal *pgproto3.ErrorResponse

	dialing sync.Mutex     // held while one connection makes place for the next
	done    sync.WaitGroup // of its two goroutines
	closed  bool

	mu       sync.Mutex
	conn     net.Conn
	out      [][]byte // not yet written; nil ends the connection
	wake     chan struct{}
	statuses []Status
	startup  map[string]string
	started  string // the START_REPLICATION command
	ended    bool   // the client sent CopyDone
	frozen   bool
	hung     chan struct{} // closed by Hangup
}

// New returns a server that knows what package replication asks when it dials. It is closed
// with the test.
func New(tb testing.TB) *Server {
	s := &Server{
		answers: map[string]string{
			"SELECT pg_catalog.pg_backend_pid()": "4711",
			"SHOW server_version_num":            "150018",
			"SHOW wal_sender_timeout":            "15s",
		},
		wake: make(chan struct{}, 1),
	}
	tb.Cleanup(func() {
		s.dialing.Lock() // pgconn may still dial, to cancel a query
		defer s.dialing.Unlock()
		s.closed = true
		s.Hangup()
		s.done.Wait()
	})
	return s
}

// Answer sets the one value that a simple query returns. Before Dial.
func (s *Server) Answer(sql, value string) { s.answers[sql] = value }

// Refuse makes the server answer a startup with an error. Before Dial.
func (s *Server) Refuse(code, message string) {
	s.refusal = &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

// Dial is a pgconn.DialFunc. A new connection takes the place of the last one.
func (s *Server) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	if err := s.Attach(server); err != nil {
		return nil, err
	}
	return client, nil
}

// Attach serves a connection that the caller made, in place of the last one.
func (s *Server) Attach(server net.Conn) error {
	s.dialing.Lock()
	defer s.dialing.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.Hangup()
	s.done.Wait()
	s.mu.Lock()
	s.conn, s.out, s.ended, s.started, s.statuses = server, nil, false, "", nil
	s.frozen, s.hung = false, make(chan struct{})
	s.mu.Unlock()
	gone := make(chan struct{})
	s.done.Go(func() {
		defer close(gone)
		defer func() { _ = server.Close() }()
		s.serve(server)
	})
	s.done.Go(func() { s.write(server, gone) })
	return nil
}

// Hangup closes the connection as a crash does: without a word, at once.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close()
		close(s.hung)
		s.conn = nil
	}
}

// Freeze makes the server hang, as a host does: it takes one message more,
// answers none, and reads no further. What is sent still goes out.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = true
}

// Statuses are those that have arrived on the present connection, oldest first.
func (s *Server) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Status(nil), s.statuses...)
}

// Startup are the parameters of the last startup message.
func (s *Server) Startup() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startup
}

// Started is the START_REPLICATION command; "" before it.
func (s *Server) Started() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// Ended reports whether the client has sent CopyDone.
func (s *Server) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Raw sends bytes as they are, behind what was sent before, and does not wait
// until they are read.
func (s *Server) Raw(b []byte) { s.enqueue(append([]byte{}, b...)) }

// Close closes the connection behind what was sent before.
func (s *Server) Close() { s.enqueue(nil) }

func (s *Server) enqueue(b []byte) {
	s.mu.Lock()
	s.out = append(s.out, b)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends what is queued until the connection is gone.
func (s *Server) write(conn net.Conn, gone <-chan struct{}) {
	for {
		s.mu.Lock()
		var b []byte
		queued := len(s.out) > 0
		if queued {
			b, s.out = s.out[0], s.out[1:]
		}
		s.mu.Unlock()
		switch {
		case queued && b == nil:
			_ = conn.Close()
			return
		case queued:
			if _, err := conn.Write(b); err != nil {
				return
			}
		default:
			select {
			case <-s.wake:
			case <-gone:
				return
			}
		}
	}
}

// serve reads what the client says, until it leaves.
func (s *Server) serve(conn net.Conn) {
	backend := pgproto3.NewBackend(conn, io.Discard) // answers go through the queue
	if !s.greet(backend) {
		return
	}
	for {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		if hung := s.froze(); hung != nil {
			<-hung
			return
		}
		switch m := message.(type) {
		case *pgproto3.Query:
			s.query(m.String)
		case *pgproto3.CopyData:
			s.note(m.Data)
		case *pgproto3.CopyDone:
			s.mu.Lock()
			s.ended = true
			s.mu.Unlock()
			s.End()
		case *pgproto3.Terminate:
			return
		}
	}
}

// froze returns what ends the wait of a frozen server; nil if it is none.
func (s *Server) froze() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen {
		return nil
	}
	return s.hung
}

func (s *Server) greet(backend *pgproto3.Backend) bool {
	message, err := backend.ReceiveStartupMessage()
	if err != nil {
		return false
	}
	startup, ok := message.(*pgproto3.StartupMessage)
	if !ok { // a request to cancel or to encrypt
		return false
	}
	s.mu.Lock()
	s.startup = startup.Parameters
	s.mu.Unlock()
	if s.refusal != nil {
		s.send(s.refusal)
		s.Close()
		return true // until the client has gone
	}
	s.send(&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.BackendKeyData{ProcessID: PID + 1, SecretKey: []byte{1, 2, 3, 4}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	return true
}

// note keeps a standby status update; anything else would be a fault of ours.
func (s *Server) note(data []byte) {
	if len(data) != 34 || data[0] != 'r' {
		s.Error("08P01", "no standby status update")
		return
	}
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(data[at:]) }
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = append(s.statuses, Status{
		Write: u64(1), Flush: u64(9), Apply: u64(17), Clock: u64(25), Reply: data[33] == 1, At: time.Now(),
	})
}

// send encodes and queues; together, so that they arrive in one piece where the pipe lets them.
func (s *Server) send(messages ...pgproto3.BackendMessage) {
	var b []byte
	var err error
	for _, m := range messages {
		var failed error
		b, failed = m.Encode(b)
		err = errors.Join(err, failed)
	}
	if err != nil {
		panic(err) // a message of ours that is too large
	}
	s.enqueue(b)
}
