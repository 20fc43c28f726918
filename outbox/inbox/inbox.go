package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Consumer is who takes events: members of one consumer group share it.
// Consumers of different names do not know of each other.
type Consumer struct {
	Name   string // required
	Schema string // of the inbox; "" is outbox
}

// Record is a record of Kafka, whatever the client.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64  // for errors only
	Key       []byte // nil: none
	// Header returns the value of the header of that name; false if there is none.
	Header func(name string) (value []byte, ok bool)
}

// String names the record as Kafka's tools do: topic/partition@offset.
func (r Record) String() string { return fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset) }

// Names of the headers that matter here.
const (
	headerID          = "id"
	headerPosition    = "outrider-position"
	headerSource      = "outrider-source"
	headerCommittedAt = "outrider-committed-at"
	headerDeadTopic   = "outrider-dead-topic"
)

func (r Record) header(name string) (value string, ok bool) {
	if r.Header == nil {
		return "", false
	}
	b, ok := r.Header(name)
	return string(b), ok && b != nil
}

func (r Record) id() (string, error) {
	id, _ := r.header(headerID)
	if id == "" {
		return "", &HeaderError{Record: r.String(), Header: headerID}
	}
	return id, nil
}

// Errors. What the server says is wrapped beside them.
var (
	// ErrNoTransaction means that what was given is a pool or a connection: the
	// note would be committed without the effect. Give the transaction.
	ErrNoTransaction = errors.New("inbox: not in a transaction")
	// ErrNoInbox means that the functions of the inbox are not in the database:
	// apply what "outrider migrate print --only inbox" prints.
	ErrNoInbox = errors.New(`inbox: the database has no inbox; apply what "outrider migrate print --only inbox" prints`)
	// ErrNotOutrider means that a record did not come from Outrider; see [HeaderError].
	ErrNotOutrider = errors.New("inbox: not a record of Outrider")
)

// HeaderError is a record without a header that it must have, or with one that
// cannot be read. It is [ErrNotOutrider].
type HeaderError struct {
	Record string // topic/partition@offset
	Header string
	Value  string // "" if it is missing
}

// Error implements error.
func (e *HeaderError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("inbox: record %s has no header %s", e.Record, e.Header)
	}
	return fmt.Sprintf("inbox: record %s has header %s: %q", e.Record, e.Header, e.Value)
}

// Is reports whether target is [ErrNotOutrider].
func (e *HeaderError) Is(target error) bool { return target == ErrNotOutrider }

// Tx is a transaction of database/sql: *sql.Tx, or what is built on it.
type Tx interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Row is a row of a driver.
type Row interface{ Scan(dest ...any) error }

// PgxTx is a pgx.Tx. R is found by the compiler.
type PgxTx[R Row] interface {
	QueryRow(ctx context.Context, query string, args ...any) R
}

// Once takes r by its id: true the first time. A false answer means that the
// event's effect is committed already, or earlier in this transaction: commit
// what there is, and the offset. A record that another transaction is about to
// take is waited for. Errors: [HeaderError], [ErrNoTransaction], [ErrNoInbox], or
// what the server says; then roll back.
func Once(ctx context.Context, tx Tx, c Consumer, r Record) (first bool, err error) {
	return once(tx, func(q string, args ...any) Row { return tx.QueryRowContext(ctx, q, args...) }, c, r)
}

// OncePgx is [Once] for pgx.
func OncePgx[R Row](ctx context.Context, tx PgxTx[R], c Consumer, r Record) (first bool, err error) {
	return once(tx, func(q string, args ...any) Row { return tx.QueryRow(ctx, q, args...) }, c, r)
}

// Newer takes records by position, those of one partition in the order of their
// offsets, and answers for each: true the first time. One round trip a
// partition. The transaction must be READ COMMITTED, Postgres' default: a
// snapshot that is older than a lock would not show what was taken meanwhile.
// Errors as of [Once].
func Newer(ctx context.Context, tx Tx, c Consumer, records ...Record) (first []bool, err error) {
	return newer(tx, func(q string, args ...any) Row { return tx.QueryRowContext(ctx, q, args...) }, c, records)
}

// NewerPgx is [Newer] for pgx.
func NewerPgx[R Row](ctx context.Context, tx PgxTx[R], c Consumer, records ...Record) (first []bool, err error) {
	return newer(tx, func(q string, args ...any) Row { return tx.QueryRow(ctx, q, args...) }, c, records)
}

// Purge forgets ids that were received longer ago than keep, in batches of 1000,
// each a statement of its own if db is a pool or connection, which it should be.
// Call it now and then, from any one member. It returns how many rows went.
func Purge(ctx context.Context, db Tx, c Consumer, keep time.Duration) (rows int64, err error) {
	return purge(func(q string, args ...any) Row { return db.QueryRowContext(ctx, q, args...) }, c, keep)
}

// PurgePgx is [Purge] for pgx.
func PurgePgx[R Row](ctx context.Context, db PgxTx[R], c Consumer, keep time.Duration) (rows int64, err error) {
	return purge(func(q string, args ...any) Row { return db.QueryRow(ctx, q, args...) }, c, keep)
}

type query func(q string, args ...any) Row

func once(tx any, q query, c Consumer, r Record) (first bool, err error) {
	if err := check(tx); err != nil {
		return false, err
	}
	id, err := r.id()
	if err != nil {
		return false, err
	}
	if err := q(`SELECT `+c.schema()+`.inbox_once($1::text, $2::text, $3::text::boolean)`, c.Name, id, strconv.FormatBool(r.dead())).Scan(&first); err != nil {
		return false, fmt.Errorf("take record %s: %w", r, explain(err))
	}
	return first, nil
}

func newer(tx any, q query, c Consumer, records []Record) (first []bool, err error) {
	if err := check(tx); err != nil {
		return nil, err
	}
	places := make([]place, len(records))
	for i, r := range records {
		if places[i], err = r.place(); err != nil {
			return nil, err
		}
	}
	first = make([]bool, len(records))
	for _, part := range partitions(records) {
		batch := make([]place, len(part))
		for i, at := range part {
			batch[i] = places[at]
		}
		given, err := json.Marshal(batch)
		if err != nil {
			return nil, fmt.Errorf("take records: %w", err)
		}
		r := records[part[0]]
		var answer string
		err = q(`SELECT `+c.schema()+`.inbox_newer($1::text, $2::text, $3::text::integer, $4::text::jsonb)::text`,
			c.Name, r.Topic, strconv.Itoa(int(r.Partition)), string(given)).Scan(&answer)
		if err != nil {
			return nil, fmt.Errorf("take %d records from %s on: %w", len(part), r, explain(err))
		}
		// An array of boolean as text: {t,f}.
		answers := strings.Split(strings.Trim(answer, "{}"), ",")
		if len(answers) != len(part) {
			return nil, fmt.Errorf("take %d records from %s on: the inbox answers %q", len(part), r, answer)
		}
		for i, at := range part {
			first[at] = answers[i] == "t"
		}
	}
	return first, nil
}

func purge(q query, c Consumer, keep time.Duration) (rows int64, err error) {
	for {
		var n int64
		err := q(`SELECT `+c.schema()+`.inbox_purge($1::text, $2::text::interval)`, c.Name, fmt.Sprintf("%d microseconds", keep.Microseconds())).Scan(&n)
		rows += n
		switch {
		case err != nil:
			return rows, fmt.Errorf("purge the inbox: %w", explain(err))
		case n == 0:
			return rows, nil
		}
	}
}
