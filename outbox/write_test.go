package outbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// awkward texts are those that some step of the way quotes or reads in another way.
func awkward() []string {
	return []string{"", " ", "NULL", "null", `"`, `\`, `\\"`, "{}", "{a,b}", ",", "'", "''; --", "$1", "?", ":a", "\n\t\r", "\x01\x7f", "ß→🦀", `\u0000`, `a"b\c`}
}

func TestEveryTextComesBackAsItWas(t *testing.T) {
	var msgs []outbox.Message
	for _, text := range awkward() {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		id, err := outbox.NewID()
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs,
			outbox.Message{ID: id, Topic: "t", Key: outbox.Key(text), Type: text, Payload: json.RawMessage("  " + string(quoted) + "\n"), Headers: outbox.Headers{text: text}},
			outbox.Message{Topic: "t", Payload: []byte(text), Headers: outbox.Headers{"null": nil, "number": json.RawMessage("1.10")}},
			outbox.Message{Topic: "t"})
	}
	for _, step := range []int{1, 3, len(msgs)} { // a statement for one row, and one for many
		var r outboxtest.Recorder
		for at := 0; at < len(msgs); at += step {
			ids, err := outbox.Write(context.Background(), &r, msgs[at:min(at+step, len(msgs))]...)
			if err != nil {
				t.Fatal(err)
			}
			for i, id := range ids {
				msgs[at+i].ID = id
			}
		}
		got := r.Messages()
		if len(got) != len(msgs) {
			t.Fatalf("in steps of %d: %d messages, want %d", step, len(got), len(msgs))
		}
		for i, want := range msgs {
			if !reflect.DeepEqual(got[i], want) {
				t.Errorf("in steps of %d: message %d is\n%#v, want\n%#v", step, i, got[i], want)
			}
		}
	}
}

// executor counts statements; it is no transaction.
type executor struct {
	queries []string
	err     error
}

func (e *executor) ExecContext(_ context.Context, query string, _ ...any) (sql.Result, error) {
	e.queries = append(e.queries, query)
	return driver.ResultNoRows, e.err
}

// transaction is an executor that shows that it is one.
type transaction struct{ executor }

func (*transaction) Commit() error   { return nil }
func (*transaction) Rollback() error { return nil }

func TestOneStatementForManyMessages(t *testing.T) {
	var tx transaction
	ids, err := outbox.Write(context.Background(), &tx, make([]outbox.Message, 0)...)
	if ids != nil || err != nil || len(tx.queries) != 0 {
		t.Errorf("no messages: %v, %v, %d statements", ids, err, len(tx.queries))
	}
	for range 2 {
		msgs := make([]outbox.Message, 20000) // beyond the 65535 parameters of a statement, seven each
		for i := range msgs {
			msgs[i].Topic = "t"
		}
		if _, err := outbox.Write(context.Background(), &tx, msgs...); err != nil {
			t.Fatal(err)
		}
	}
	if len(tx.queries) != 2 || tx.queries[0] != tx.queries[1] {
		t.Errorf("%d statements for two calls, the same text: %v", len(tx.queries), tx.queries[0] == tx.queries[1])
	}
}

func TestWithoutTransaction(t *testing.T) {
	message := outbox.Message{Topic: "t"}
	// A pool is refused before it is asked for a connection: this one has none to give.
	db := sql.OpenDB(nothing{})
	defer db.Close()
	if _, err := outbox.Write(context.Background(), db, message); !errors.Is(err, outbox.ErrNoTransaction) {
		t.Errorf("pool: %v", err)
	}
	// The server is asked about what may be a transaction.
	var open executor
	if _, err := outbox.Write(context.Background(), &open, message); err != nil || len(open.queries) != 2 {
		t.Errorf("executor with an open transaction: %v, %d statements", err, len(open.queries))
	}
	closed := executor{err: stateError("25P01")}
	if _, err := outbox.Write(context.Background(), &closed, message); !errors.Is(err, outbox.ErrNoTransaction) || len(closed.queries) != 1 {
		t.Errorf("executor without one: %v, %d statements", err, len(closed.queries))
	}
	away := executor{err: driver.ErrBadConn}
	if _, err := outbox.Write(context.Background(), &away, message); errors.Is(err, outbox.ErrNoTransaction) || !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("lost connection: %v", err)
	}
	var allowed executor
	w := outbox.Writer{AllowAutocommit: true}
	if _, err := w.Write(context.Background(), &allowed, message); err != nil || len(allowed.queries) != 1 {
		t.Errorf("allowed: %v, %d statements", err, len(allowed.queries))
	}
	var tx transaction
	if _, err := outbox.Write(context.Background(), &tx, message); err != nil || len(tx.queries) != 1 {
		t.Errorf("transaction: %v, %d statements", err, len(tx.queries))
	}
}

// nothing is a database that cannot be reached.
type nothing struct{}

func (nothing) Connect(context.Context) (driver.Conn, error) { return nil, errors.New("was asked") }
func (nothing) Driver() driver.Driver                        { return nil }

// stateError is an error of the server, as drivers show it.
type stateError string

func (e stateError) Error() string    { return "server: " + string(e) }
func (e stateError) SQLState() string { return string(e) }

func TestAnswersOfTheServer(t *testing.T) {
	given, err := outbox.NewID()
	if err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]error{
		"23505": outbox.ErrDuplicateID, "23514": outbox.ErrRefused, "23502": outbox.ErrRefused, "22P02": outbox.ErrRefused,
		"42P01": outbox.ErrNoTable, "3F000": outbox.ErrNoTable, "42501": outbox.ErrPermission,
	} {
		tx := transaction{executor{err: stateError(state)}}
		_, err := outbox.Write(context.Background(), &tx, outbox.Message{Topic: "t"}, outbox.Message{Topic: "t", ID: given})
		if !errors.Is(err, want) || !errors.Is(err, stateError(state)) {
			t.Errorf("%s: %v", state, err)
		}
		var refused *outbox.Error
		if errors.As(err, &refused) && state == "23505" && (refused.Index != 1 || refused.Field != "ID") {
			t.Errorf("the id that was given is message 1: %v", err)
		}
		if errors.As(err, &refused) && state == "23514" && refused.Index != -1 {
			t.Errorf("nobody knows which message it was: %v", err)
		}
	}
	tx := transaction{executor{err: stateError("42P02")}}
	if _, err := outbox.Write(context.Background(), &tx, outbox.Message{Topic: "t"}); err == nil || !strings.Contains(err.Error(), "tx.Tx") {
		t.Errorf("an executor that keeps the parameters: %v", err)
	}
	tx.err = context.Canceled
	if _, err := outbox.Write(context.Background(), &tx, outbox.Message{Topic: "t"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPgxByInference(t *testing.T) {
	var r outboxtest.Recorder
	if _, err := outbox.WritePgx(context.Background(), &r, outbox.Message{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	w := outbox.Writer{MaxBytes: 1}
	var size *outbox.SizeError
	if _, err := w.Write(context.Background(), outbox.Pgx(&r), outbox.Message{Topic: "t", Payload: 10}); !errors.As(err, &size) {
		t.Error(err)
	}
	outboxtest.Require(t, r.Messages(), outboxtest.Match{Topic: "t", Payload: outboxtest.Tombstone})
}
