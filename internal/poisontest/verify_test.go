package poisontest_test

import (
	"bytes"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// event is a row of the table, and what outbox.dead knows of it.
type event struct {
	ID, Topic, Key, State string
	Value                 []byte
}

// verify stops the relays, reads everything, and compares it with the tables:
// each event where it belongs and whole, those of one key in order, and in
// exactly-once none twice. Nothing may be left that waits.
func (w *world) verify(relays ...*running) {
	w.t.Helper()
	for _, r := range relays {
		r.stop()
	}
	w.seen.committed.catchUp(w.t, w.admin)
	w.seen.all.catchUp(w.t, w.admin)
	rows, err := w.db.Query(w.t.Context(), `SELECT e.id::text, e.topic, coalesce(e.key, '') AS key, coalesce(d.state, '') AS state,
 coalesce(e.payload_bytes, convert_to(e.payload::text, 'UTF8')) AS value
FROM outbox.events e LEFT JOIN outbox.dead d ON d.id = e.id::text ORDER BY e.seq`)
	if err != nil {
		w.t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, pgx.RowToStructByName[event])
	if err != nil {
		w.t.Fatal(err)
	}
	normal, letters := byID(w.seen.committed.of(w.topic)), byID(w.seen.committed.of(w.dead))
	for i, e := range events {
		own, letter := len(normal[e.ID]), len(letters[e.ID])
		switch e.State {
		case "":
			if own == 0 || letter != 0 || w.delivery == relay.ExactlyOnce && own != 1 {
				w.t.Errorf("event %d, %s, is there %d times, and %d times as a dead letter", i, e.ID, own, letter)
			} else if !bytes.Equal(normal[e.ID][0].Value, e.Value) {
				w.t.Errorf("event %d, %s, came with another value", i, e.ID)
			}
		case "dead-lettered":
			if own != 0 || letter == 0 || w.delivery == relay.ExactlyOnce && letter != 1 {
				w.t.Errorf("event %d, %s, dead-lettered, is there %d times, and %d times as a dead letter", i, e.ID, own, letter)
			}
		case "skipped":
			if own != 0 || letter != 0 {
				w.t.Errorf("event %d, %s, left out, is there %d times, and %d times as a dead letter", i, e.ID, own, letter)
			}
		default:
			w.t.Errorf("event %d, %s, is still %s", i, e.ID, e.State)
		}
	}
	w.inOrder(events)
	if kept := w.text(`SELECT count(*)::text FROM outbox.dead d LEFT JOIN outbox.events e ON e.id::text = d.id
 WHERE d.value IS DISTINCT FROM coalesce(e.payload_bytes, convert_to(e.payload::text, 'UTF8')) OR d.topic <> e.topic OR d.key IS DISTINCT FROM e.key`); kept != "0" {
		w.t.Errorf("%s rows of outbox.dead are not whole", kept)
	}
}

func byID(records []*kgo.Record) map[string][]*kgo.Record {
	found := map[string][]*kgo.Record{}
	for _, r := range records {
		found[header(r, "id")] = append(found[header(r, "id")], r)
	}
	return found
}

// inOrder checks the order of each key: the first records of its events are in
// commit order, and its last record is the last event.
func (w *world) inOrder(events []event) {
	w.t.Helper()
	want, first, last := map[string][]string{}, map[string][]string{}, map[string]string{}
	for _, e := range events {
		if e.State == "" && e.Key != "" {
			want[e.Key] = append(want[e.Key], e.ID)
		}
	}
	records, known := w.seen.committed.of(w.topic), map[string]bool{}
	for _, r := range records {
		key, id := string(r.Key), header(r, "id")
		if last[key] = id; !known[id] && key != "" {
			first[key] = append(first[key], id)
		}
		known[id] = true
	}
	w.t.Logf("%s: %d events, %d records, %d of them again", w.delivery, len(events), len(records), len(records)-len(known))
	if diff := cmp.Diff(want, first); diff != "" {
		w.t.Errorf("events of a key are not in commit order (-committed +on Kafka):\n%s", diff)
	}
	for key, ids := range want {
		if last[key] != ids[len(ids)-1] {
			w.t.Errorf("key %s: the last record is %s, not the last event", key, last[key])
		}
	}
}
