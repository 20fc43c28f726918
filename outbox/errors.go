package outbox

import (
	"errors"
	"fmt"
)

// Reasons, for errors.Is. Those of the first group come before the round trip,
// and in an [*Error]: the transaction can go on. Those of the second are the
// answer of the server, whose error is wrapped, too (a *pgconn.PgError or
// *pq.Error, which name the constraint): as after any error the transaction can
// only be rolled back, to a savepoint at least.
var (
	ErrNoTransaction  = errors.New("no transaction is open: pass the transaction of the business change, such as a *sql.Tx or pgx.Tx")
	ErrTopic          = errors.New("a topic has 1 to 249 of a-z A-Z 0-9 . _ - and is neither \".\" nor \"..\"")
	ErrText           = errors.New("text must be valid UTF-8 without NUL")
	ErrPayload        = errors.New("payload cannot be encoded")
	ErrHeader         = errors.New("a header is a string, nil, or a value that json.Marshal takes")
	ErrReservedHeader = errors.New("headers id, type and outrider-... are set by the relay")

	ErrDuplicateID = errors.New("an event of this id was written before") // also before the round trip, if one call holds it twice
	ErrRefused     = errors.New("the table refuses the row")              // SQLSTATE 23502, 23514 or class 22; the wrapped error says why
	ErrNoTable     = errors.New("the outbox table is missing or of another version; hint: outrider migrate up")
	ErrPermission  = errors.New("the role may not write to the outbox; hint: outrider migrate print --only roles --roles app=ROLE")
)

// Error says which message was refused.
type Error struct {
	Index int    // position in the arguments, from 0; -1 if the server refused one of several and it is not known which
	Field string // field of Message: "ID", "Topic", "Key", "Type", "Payload" or "Headers"; "" if it is the message as a whole, or not known
	Err   error  // why; see the Err variables and [SizeError]
}

// Error names the message and the field, and never shows a payload or a key.
func (e *Error) Error() string {
	where := "a message"
	if e.Index >= 0 {
		where = fmt.Sprintf("message %d", e.Index)
	}
	if e.Field != "" {
		where += ": " + e.Field
	}
	return "outbox: " + where + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// SizeError is the reason why a message is too large. It comes before the round trip.
type SizeError struct {
	Size  int // octets of payload, key, type and headers together, as the table counts
	Limit int // Writer.MaxBytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%d octets of payload, key, type and headers, at most %d fit", e.Size, e.Limit)
}

// sqlState is the server's code in err, "" if it is none of the server's.
func sqlState(err error) string {
	var state interface{ SQLState() string } // pgx, lib/pq
	if errors.As(err, &state) {
		return state.SQLState()
	}
	var field interface{ Field(byte) string } // bun's pgdriver, by the letters of the protocol
	if errors.As(err, &field) {
		return field.Field('C')
	}
	return ""
}

// refused gives the server's err its reason. Only SQLSTATE tells, which drivers
// offer as a method; a constraint's name is a field of their own types. It is not
// needed: what the table's constraints check was checked before. given are the
// messages whose id came from the caller.
func refused(err error, first, count int, given []int) error {
	index := -1
	if count == 1 {
		index = first
	}
	switch code := sqlState(err); {
	case code == "23505":
		// A generated id is new, so it was one of those that were given.
		if len(given) == 1 {
			index = given[0]
		}
		return &Error{Index: index, Field: "ID", Err: fmt.Errorf("%w: %w", ErrDuplicateID, err)}
	case code == "23514", code == "23502", len(code) == 5 && code[:2] == "22":
		return &Error{Index: index, Err: fmt.Errorf("%w: %w", ErrRefused, err)}
	case code == "42P01", code == "3F000", code == "42703", code == "42883": // table, schema, column, function
		return fmt.Errorf("outbox: write messages: %w: %w", ErrNoTable, err)
	case code == "42501":
		return fmt.Errorf("outbox: write messages: %w: %w", ErrPermission, err)
	case code == "42P02":
		// The server got $1 without a value: this executor puts values into the text of a query itself.
		return fmt.Errorf("outbox: write messages: the executor does not pass parameters on; hint: hand in the *sql.Tx inside, with bun tx.Tx: %w", err)
	}
	return fmt.Errorf("outbox: write messages: %w", err)
}
