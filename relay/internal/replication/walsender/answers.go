package walsender

import (
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// query answers a command of the simple protocol.
func (s *Server) query(sql string) {
	value, known := s.answers[sql]
	switch {
	case known:
		s.rows([]string{"value"}, []string{value})
	case sql == "IDENTIFY_SYSTEM":
		s.rows([]string{"systemid", "timeline", "xlogpos", "dbname"}, []string{SystemID, "1", "0/1000", "tester"})
	case strings.HasPrefix(sql, "START_REPLICATION "):
		s.mu.Lock()
		s.started = sql
		s.mu.Unlock()
		s.send(&pgproto3.CopyBothResponse{})
	default:
		s.send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601", Message: "the fake has no answer"},
			&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
}

// rows answers with one row of text.
func (s *Server) rows(names, values []string) {
	description := &pgproto3.RowDescription{}
	row := &pgproto3.DataRow{}
	for i, name := range names {
		description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
		row.Values = append(row.Values, []byte(values[i]))
	}
	s.send(description, row, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
}
