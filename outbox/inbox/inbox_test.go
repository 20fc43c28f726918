package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox/inbox"
)

// answer is a row as a driver has it: a type that package inbox does not know.
type answer struct{ text string }

func (a answer) Scan(dest ...any) error {
	switch d := dest[0].(type) {
	case *string:
		*d = a.text
	case *bool:
		*d = a.text == "t"
	default:
		return fmt.Errorf("asked for %T", d)
	}
	return nil
}

// transaction looks like pgx.Tx: it answers a concrete type.
type transaction struct{ asked [][]any }

func (tx *transaction) Commit(context.Context) error { return nil }

func (tx *transaction) QueryRow(_ context.Context, query string, args ...any) answer {
	tx.asked = append(tx.asked, append([]any{query}, args...))
	if strings.Contains(query, "inbox_once") {
		return answer{"t"}
	}
	n := strings.Count(args[3].(string), `"id"`)
	return answer{"{" + strings.TrimSuffix(strings.Repeat("t,", n-1)+"f,", ",") + "}"}
}

func at(topic string, partition int32, id string, more ...string) inbox.Record {
	headers := map[string]string{"id": id}
	for i := 0; i < len(more); i += 2 {
		headers[more[i]] = more[i+1]
	}
	return inbox.Record{Topic: topic, Partition: partition, Key: []byte("k"), Header: func(name string) ([]byte, bool) {
		v, ok := headers[name]
		return []byte(v), ok
	}}
}

func TestRecordsGoByPartitionInOrder(t *testing.T) {
	tx := &transaction{}
	first, err := inbox.NewerPgx(context.Background(), tx, inbox.Consumer{Name: "c", Schema: `we"ird`},
		at("b", 1, "1"), at("a", 2, "2"), at("b", 0, "3"), at("b", 1, "4"), at("a", 2, "5", "outrider-dead-topic", "x"))
	if err != nil || !reflect.DeepEqual(first, []bool{true, true, false, false, false}) {
		t.Errorf("%v, %v", first, err)
	}
	var got []string
	for _, args := range tx.asked {
		if args[0] != `SELECT "we""ird".inbox_newer($1::text, $2::text, $3::text::integer, $4::text::jsonb)::text` {
			t.Errorf("query %s", args[0])
		}
		got = append(got, fmt.Sprint(args[1:]...))
	}
	want := []string{
		`c a 2 [{"id":"2","ordered":true},{"id":"5","ordered":true,"dead":true}]`,
		`c b 0 [{"id":"3","ordered":true}]`,
		`c b 1 [{"id":"1","ordered":true},{"id":"4","ordered":true}]`,
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], " ", "")
	}
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], " ", "")
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestOnlyTransactionsAreTaken(t *testing.T) {
	ctx, c, r := context.Background(), inbox.Consumer{Name: "c"}, at("t", 0, "1")
	if first, err := inbox.OncePgx(ctx, &transaction{}, c, r); !first || err != nil {
		t.Errorf("%v, %v", first, err)
	}
	var none *sql.DB
	_, refused := inbox.Once(ctx, none, c, r)
	if !errors.Is(refused, inbox.ErrNoTransaction) {
		t.Errorf("a pool: %v", refused)
	}
	if _, err := inbox.Once(ctx, nil, c, r); !errors.Is(err, inbox.ErrNoTransaction) {
		t.Errorf("nil: %v", err)
	}
}

func TestMissingHeadersAreNamed(t *testing.T) {
	tx := &transaction{}
	_, err := inbox.OncePgx(context.Background(), tx, inbox.Consumer{Name: "c"}, inbox.Record{Topic: "t", Partition: 3, Offset: 7})
	if want := "inbox: record t/3@7 has no header id"; err == nil || err.Error() != want || !errors.Is(err, inbox.ErrNotOutrider) || len(tx.asked) > 0 {
		t.Errorf("%v after %d queries, want %s", err, len(tx.asked), want)
	}
}
