// Package statement is the SQL that writes rows: one statement with seven
// parameters for any number of rows, and the way back from the parameters to
// the rows, which a test without a database goes.
//
// It promises a text that does not depend on the number of rows beyond one or
// many, so that caches of prepared statements hold two entries; parameters that
// are text or NULL with a cast from text in the statement, so that the server
// derives no other type for them in any protocol, driver or pooler; and rows
// inserted in their order. It does not check rows.
package statement

import "strings"

// Row is a row of the table. A nil pointer is NULL.
type Row struct {
	ID, Topic               string
	Key, Type, JSON, Base64 *string // Base64 is payload_bytes
	Headers                 *string // a JSON object; the transaction's headers go under it
}

// fields in the order of the parameters.
func (r *Row) fields() [7]*string {
	return [7]*string{&r.ID, &r.Topic, r.Key, r.Type, r.JSON, r.Base64, r.Headers}
}

// size is about what the row adds to the parameters, in bytes.
func (r *Row) size() int {
	n := 0
	for _, field := range r.fields() {
		n += len("NULL,")
		if field != nil {
			n += len(*field)
		}
	}
	return n
}

// maxBytes bounds what one statement holds in memory here and, several times
// over, on the server, where a value ends at 1 GiB.
const maxBytes = 64 << 20

// Fit tells how many rows from the first on go into one statement: at least one.
func Fit(rows []Row) int {
	total := 0
	for i := range rows {
		total += rows[i].size()
		if total > maxBytes && i > 0 {
			return i
		}
	}
	return len(rows)
}

// Into is where rows go.
type Into struct{ Schema, Table string }

const (
	columns = " (id, topic, key, type, payload, payload_bytes, headers) "
	// The ordinality makes the order of the rows, and with it of column seq, that
	// of the arrays: defaults are computed above the sort.
	unnest = " FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[], $7::text::text[])" +
		" WITH ORDINALITY AS m (id, topic, key, type, payload, bytes, headers, n) ORDER BY m.n"
)

// Insert returns the statement for rows, of which there is at least one, and its parameters.
//
// A row without headers gets NULL, for which the table puts in the headers of
// the transaction; a row with headers gets those under its own.
func (t Into) Insert(rows []Row) (query string, args []any) {
	into := "INSERT INTO " + quote(t.Schema) + "." + quote(t.Table) + columns
	context := quote(t.Schema) + ".context_headers()"
	if len(rows) == 1 {
		for _, field := range rows[0].fields() {
			if field == nil {
				args = append(args, nil)
			} else {
				args = append(args, *field)
			}
		}
		return into + "VALUES ($1::text::uuid, $2::text, $3::text, $4::text, $5::text::json, decode($6::text, 'base64'), " +
			"coalesce(" + context + " || $7::text::jsonb, $7::text::jsonb))", args
	}
	for column := range rows[0].fields() {
		args = append(args, array(rows, column))
	}
	return into + "SELECT m.id::uuid, m.topic, m.key, m.type, m.payload::json, decode(m.bytes, 'base64'), " +
		"coalesce((SELECT " + context + ") || m.headers::jsonb, m.headers::jsonb)" + unnest, args
}

// quote makes an identifier of any name.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// array is one field of all rows, as Postgres reads the text of an array.
func array(rows []Row, column int) string {
	size := len("{}")
	for i := range rows {
		if field := rows[i].fields()[column]; field != nil {
			size += len(*field) + len(*field)/8 // quotes of JSON want a backslash
		}
		size += len("NULL,")
	}
	b := make([]byte, 0, size)
	b = append(b, '{')
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		field := rows[i].fields()[column]
		if field == nil {
			b = append(b, "NULL"...)
			continue
		}
		b = append(b, '"')
		for rest := *field; rest != ""; {
			at := strings.IndexAny(rest, `"\`)
			if at < 0 {
				b = append(b, rest...)
				break
			}
			b = append(b, rest[:at]...)
			b = append(b, '\\', rest[at])
			rest = rest[at+1:]
		}
		b = append(b, '"')
	}
	return string(append(b, '}'))
}
