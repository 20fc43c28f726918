package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// The raw reader is the least that a reader of a slot can be: one goroutine
// that finds every column of every row in the socket's buffer, and throws it
// away. It shares no code with the relay, and asks for the same stream.

// statusEvery is how often the server hears of us; its timeout is 60 s.
const statusEvery = 2 * time.Second

// rawBuffer is the socket's buffer in our memory; messages above it are copied.
const rawBuffer = 1 << 20

type rawReader struct {
	conn   *pgconn.PgConn
	buffer *bufio.Reader
	job    job

	rows      int
	committed time.Time // of the transaction at hand
	end       uint64    // of the newest transaction
	columns   [64][]byte
	samples   samples
}

// rawRead reads until the commit behind the last row of the job. It leaves the
// connection open: the usage of the process behind it is still to be read.
func rawRead(ctx context.Context, j job, ready func() error) (report, error) {
	r := rawReader{job: j, samples: samples{skip: j.Skip}}
	if err := r.connect(ctx); err != nil {
		return report{}, err
	}
	if err := ready(); err != nil {
		return report{}, err
	}
	if err := r.read(); err != nil {
		return report{}, err
	}
	return report{Rows: r.rows, Latency: r.samples.latency()}, nil
}

func (r *rawReader) connect(ctx context.Context) error {
	cfg, err := pgconn.ParseConfig(r.job.URL)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["replication"] = "database"
	cfg.BuildFrontend = func(from io.Reader, to io.Writer) *pgproto3.Frontend {
		r.buffer = bufio.NewReaderSize(from, rawBuffer)
		return pgproto3.NewFrontend(&oneMessage{from: r.buffer}, to)
	}
	if r.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
		return err
	}
	return pglogrepl.StartReplication(ctx, r.conn, r.job.Slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'outrider'", "binary 'true'"},
	})
}

// oneMessage hands out no byte beyond the message that the frontend is reading:
// what comes after START_REPLICATION is ours.
type oneMessage struct {
	from *bufio.Reader
	left int
}

// Read implements [io.Reader].
func (o *oneMessage) Read(p []byte) (int, error) {
	if o.left == 0 {
		head, err := o.from.Peek(5)
		if err != nil {
			return 0, err
		}
		o.left = int(binary.BigEndian.Uint32(head[1:])) + 1
	}
	n, err := o.from.Read(p[:min(len(p), o.left)])
	o.left -= n
	return n, err
}

// read is the loop. Frames are those of "Streaming Replication Protocol" in the
// PostgreSQL documentation.
func (r *rawReader) read() error {
	next := time.Now().Add(statusEvery)
	for n := 0; ; n++ {
		head, err := r.buffer.Peek(5)
		if err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(head[1:])) + 1
		frame, err := r.buffer.Peek(min(size, rawBuffer))
		if err != nil {
			return err
		}
		if size > rawBuffer {
			frame = make([]byte, size)
			_, err = io.ReadFull(r.buffer, frame)
		}
		if err != nil {
			return err
		}
		done, asked, err := r.frame(frame)
		if done || err != nil {
			return err
		}
		if size <= rawBuffer {
			if _, err := r.buffer.Discard(size); err != nil {
				return err
			}
		}
		if asked || n%1024 == 0 && time.Now().After(next) {
			next = time.Now().Add(statusEvery)
			if err := r.status(); err != nil {
				return err
			}
		}
	}
}

var errFrame = errors.New("unexpected frame")

// frame takes one frame; asked means that the server wants a status.
func (r *rawReader) frame(frame []byte) (done, asked bool, err error) {
	if frame[0] != 'd' || len(frame) < 6 {
		return false, false, fmt.Errorf("%w: %q", errFrame, frame)
	}
	switch body := frame[5:]; body[0] {
	case 'k':
		return false, body[17] == 1, nil
	case 'w':
		return r.message(body[25:]), false, nil
	default:
		return false, false, fmt.Errorf("%w: %q", errFrame, frame)
	}
}

// message takes one message of pgoutput ("Logical Replication Message Formats"
// there). It trusts the server: a bad byte may well end in a panic.
func (r *rawReader) message(body []byte) (done bool) {
	switch body[0] {
	case 'B':
		r.committed = postgresEpoch().Add(time.Duration(binary.BigEndian.Uint64(body[9:])) * time.Microsecond)
	case 'I':
		r.row(body[6:]) // after the relation's oid and 'N'
		if r.rows++; r.job.Timed {
			r.samples.add(time.Since(r.committed))
		}
	case 'C':
		r.end = binary.BigEndian.Uint64(body[10:])
		return r.rows >= r.job.Rows
	}
	return false
}

// row finds the columns: after the kind of their number, for each its format
// and, unless that says NULL, its length and bytes.
func (r *rawReader) row(body []byte) {
	count, at := int(binary.BigEndian.Uint16(body)), 2
	for i := range count {
		format := body[at]
		at++
		if format == 'n' || format == 'u' {
			r.columns[i] = nil
			continue
		}
		length := int(binary.BigEndian.Uint32(body[at:]))
		at += 4
		r.columns[i] = body[at : at+length]
		at += length
	}
}

// status says what was received, and confirms next to nothing: the slot is a
// copy that is dropped.
func (r *rawReader) status() error {
	const confirmed = 1 // 0 would be taken for "as far as was written"
	b := append(make([]byte, 0, 39), 'd', 0, 0, 0, 38, 'r')
	for _, lsn := range []uint64{r.end, confirmed, confirmed} {
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(postgresEpoch()).Microseconds()))
	_, err := r.conn.Conn().Write(append(b, 0))
	return err
}

// postgresEpoch is where the server's times in microseconds begin.
func postgresEpoch() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
