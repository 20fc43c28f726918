package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/relay/internal/pgoutput"
)

// Reading the backlog: bounds, chunks, rows.

const stateQueryCanceled = "57014" // also: statement_timeout

// prepare finds columns, bounds, and how much is owed. Counting everything may
// take longer than a statement should: then the count is an estimate.
func (p *payment) prepare(ctx context.Context) error {
	r := p.db.relay
	var err error
	if p.columns, err = p.db.backlogColumns(ctx); err != nil {
		return err
	}
	owed := p.debt.owedSQL() + fmt.Sprintf(" AND seq > %d", p.cursor)
	recent := ""
	if cut, err := parseSnapshot(p.debt.row.cutoff); err == nil {
		recent = fmt.Sprintf("tx::text::bigint >= %d AND ", cut.xmin) // the BRIN index
	}
	var first, last *int64
	var rows int64
	// "seq + 0" keeps the planner from walking the index on seq from its start.
	err = p.db.QueryRow(ctx, `SELECT count(*), min(seq + 0), max(seq + 0) FROM `+r.tableSQL()+` WHERE `+recent+owed).Scan(&rows, &first, &last)
	switch {
	case sqlState(err) == stateQueryCanceled:
		if err := p.db.QueryRow(ctx, `SELECT max(seq) FROM `+r.tableSQL()).Scan(&last); err != nil {
			return r.statementError("look for the last row", err)
		}
		if err := p.db.QueryRow(ctx, `SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)`, r.tableSQL()).Scan(&rows); err != nil {
			return r.statementError("estimate the backlog", err)
		}
		r.owed.begin(rows, true)
	case err != nil:
		return r.statementError("count the backlog", err)
	default:
		r.owed.begin(rows, false)
	}
	if last != nil {
		p.last = *last
	}
	if first != nil {
		p.cursor = max(p.cursor, *first-1)
	}
	return nil
}

// backlogColumns lists the columns in the order of fields, under the names that
// the table has now.
func (db *database) backlogColumns(ctx context.Context) (string, error) {
	r := db.relay
	rows, err := db.Query(ctx, `SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, r.tableSQL())
	if err != nil {
		return "", r.statementError("look at the columns", err)
	}
	there := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return "", r.statementError("look at the columns", err)
		}
		there[name] = true
	}
	if rows.Err() != nil {
		return "", r.statementError("look at the columns", rows.Err())
	}
	var list []string
	missing := &errColumns{table: r.cfg.Table}
	for f, name := range r.cfg.columns() {
		switch {
		case there[name]:
		case there[nativeColumns[f]]:
			name = nativeColumns[f]
		default:
			missing.missing = append(missing.missing, name)
		}
		list = append(list, quote(name))
	}
	if missing.missing != nil {
		for name := range there {
			missing.found = append(missing.found, name)
		}
		return "", r.columnsMissing(missing)
	}
	return strings.Join(list, ", "), nil
}

// read runs one statement over the next stretch of the table. It holds at most
// chunkMaxBytes and one row, and asks the server to stop where more would come.
func (p *payment) read(ctx context.Context) (c chunkOf, err error) {
	r := p.db.relay
	upper := min(p.last, p.cursor+p.span)
	sql := fmt.Sprintf(`SELECT %s, seq, (extract(epoch FROM created_at) * 1000000)::bigint FROM %s WHERE seq > %d AND seq <= %d AND %s ORDER BY seq LIMIT %d`,
		p.columns, r.tableSQL(), p.cursor, upper, p.debt.owedSQL(), p.limit)
	result := p.db.PgConn().ExecParams(ctx, sql, nil, nil, nil, []int16{1})
	size, whole := 0, true
	for result.NextRow() {
		m, bad, seq, err := p.message(result)
		if err != nil {
			_, _ = result.Close() // the row is what is wrong
			return c, err
		}
		if bad != nil {
			if c.bad == nil {
				c.bad = map[int64]*unfit{}
			}
			c.bad[seq] = bad
		}
		c.messages, c.seqs = append(c.messages, m), append(c.seqs, seq)
		if size += int(m.charge); size >= chunkMaxBytes {
			whole = false
			break
		}
	}
	if !whole && len(c.messages) < p.limit {
		_ = p.db.PgConn().CancelRequest(ctx) // best effort: else the rest is read and thrown away
	}
	if _, err = result.Close(); err != nil && (whole || sqlState(err) != stateQueryCanceled) {
		// Too wide a stretch for one statement, or a cancel of the one before that came late.
		if p.cancels++; sqlState(err) == stateQueryCanceled && p.cancels < 10 {
			p.span = max(spanMin, p.span/16)
			return chunkOf{}, nil
		}
		return c, r.statementError("read the backlog", err)
	}
	p.cancels = 0
	p.adapt(&c, size, whole, upper)
	return c, nil
}

// adapt finds where the next statement starts and how much it may bring.
func (p *payment) adapt(c *chunkOf, size int, whole bool, upper int64) {
	n := len(c.messages)
	c.upTo = upper
	if !whole || n == p.limit {
		c.upTo = c.seqs[n-1]
	} else {
		p.span = min(p.span*4, spanMax)
	}
	if n == p.limit && p.span > spanMin {
		p.span = max(spanMin, 4*(c.upTo-p.cursor))
	}
	if n > 0 {
		p.limit = max(8, min(chunkMaxRows, chunkMaxBytes/max(1, size/n)))
	}
	p.cursor = c.upTo
	c.done = c.upTo >= p.last
}

// message lays out a row as the stream would.
func (p *payment) message(result *pgconn.ResultReader) (*Message, *unfit, int64, error) {
	fields, values := result.FieldDescriptions(), result.Values()
	if len(values) != int(fieldCount)+2 || len(values[fieldCount]) != 8 || len(values[fieldCount+1]) != 8 {
		return nil, nil, 0, errors.New("read the backlog: unexpected columns")
	}
	if p.rel == nil {
		p.rel = &layout{}
		for f := range fieldCount {
			p.rel.at[f], p.rel.types[f] = int(f), fields[f].DataTypeOID
		}
	}
	cols := make([]pgoutput.Column, fieldCount)
	for f := range fieldCount {
		cols[f] = pgoutput.Column{Format: 'b', Data: values[f]}
		if values[f] == nil {
			cols[f].Format = 'n'
		}
	}
	row := row{layout: p.rel, cols: cols}
	seq, created := int64(be64(values[fieldCount])), time.UnixMicro(int64(be64(values[fieldCount+1])))
	at := Position{p.debt.row.baseLSN, uint64(seq)}
	if err := row.check(); err != nil {
		return nil, nil, 0, fmt.Errorf("at position %s: %w", at, err)
	}
	m, bad := row.message(created.UTC().AppendFormat(nil, timestampFormat), func(b []byte) string { return string(b) })
	m.Topic, m.CommittedAt = string(row.col(fieldTopic).Data), created
	return m, bad, seq, nil
}

func be64(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}
