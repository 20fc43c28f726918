package walsender

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Column is one of a relation.
type Column struct {
	Name    string
	TypeOID uint32
	Key     bool
}

// WAL sends XLogData; end is what a walsender gives twice: 0 for relations and
// types, else the position of the change.
func (s *Server) WAL(end uint64, message []byte) { s.Raw(XLogData(end, message)) }

// Keepalive sends a primary keepalive.
func (s *Server) Keepalive(end uint64, reply bool) {
	b := u64(u64([]byte{'k'}, end), 0)
	if reply {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	s.Raw(CopyData(b))
}

// Notice sends a NoticeResponse.
func (s *Server) Notice(n *pgproto3.NoticeResponse) { s.send(n) }

// Error sends a FATAL ErrorResponse and closes the connection behind it.
func (s *Server) Error(code, message string) {
	s.send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
	s.Close()
}

// End ends the stream as a server does that goes down or was sent CopyDone.
func (s *Server) End() {
	s.send(&pgproto3.CopyDone{}, &pgproto3.CommandComplete{CommandTag: []byte("COPY 0")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// CopyData is the message around each of the stream's.
func CopyData(b []byte) []byte { return append(u32([]byte{'d'}, uint32(len(b)+4)), b...) }

// XLogData is CopyData with a message of the plugin.
func XLogData(end uint64, message []byte) []byte {
	return CopyData(append(u64(u64(u64([]byte{'w'}, end), end), 0), message...))
}

// Begin is the plugin's message for a transaction whose commit record starts at final.
func Begin(final uint64, at time.Time, xid uint32) []byte {
	return u32(u64(u64([]byte{'B'}, final), clock(at)), xid)
}

// Commit is the plugin's message for the end of a transaction.
func Commit(start, end uint64, at time.Time) []byte {
	return u64(u64(u64([]byte{'C', 0}, start), end), clock(at))
}

// Relation is the plugin's message about a table.
func Relation(id uint32, schema, table string, columns ...Column) []byte {
	b := cstring(cstring(u32([]byte{'R'}, id), schema), table)
	b = binary.BigEndian.AppendUint16(append(b, 'd'), uint16(len(columns)))
	for _, c := range columns {
		var flags byte
		if c.Key {
			flags = 1
		}
		b = cstring(append(b, flags), c.Name)
		b = u32(u32(b, c.TypeOID), 0xffffffff) // no type modifier
	}
	return b
}

// Insert is the plugin's message for a row of binary values; nil is a null.
func Insert(relation uint32, values ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(append(u32([]byte{'I'}, relation), 'N'), uint16(len(values)))
	for _, v := range values {
		if v == nil {
			b = append(b, 'n')
			continue
		}
		b = append(u32(append(b, 'b'), uint32(len(v))), v...)
	}
	return b
}

// clock is microseconds since 2000-01-01.
func clock(at time.Time) uint64 { return uint64(at.UnixMicro() - 946_684_800_000_000) }

func cstring(b []byte, s string) []byte { return append(append(b, s...), 0) }
func u32(b []byte, v uint32) []byte     { return binary.BigEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte     { return binary.BigEndian.AppendUint64(b, v) }
