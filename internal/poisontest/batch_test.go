package poisontest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/relay"
)

// crowd is how many rows one transaction has among which few are refused.
const crowd = 10_000

// writeCrowd commits rows of ten keys in one transaction, some of which have no
// key, or are large, and returns the ids of those, and the last one's.
func (w *world) writeCrowd(n int, special, kind string) (bad []string, last string) {
	w.t.Helper()
	key, value := `'k' || n % 10`, `to_json(n)`
	switch kind {
	case keyless:
		key = `CASE WHEN ` + special + ` THEN NULL ELSE ` + key + ` END`
	case large:
		value = `CASE WHEN ` + special + ` THEN to_json((SELECT string_agg(md5(n::text || g), '') FROM generate_series(1, 1250) g)) ELSE ` + value + ` END`
	}
	rows := w.text(fmt.Sprintf(`WITH new AS (INSERT INTO outbox.events (topic, key, payload) SELECT $1, %s, %s FROM generate_series(1, $2::int) n RETURNING id, seq, key, payload)
SELECT string_agg(id::text, ' ' ORDER BY seq) FILTER (WHERE key IS NULL OR length(payload::text) > 1000) || ' ' || (SELECT id FROM new ORDER BY seq DESC LIMIT 1) FROM new`, key, value), w.topic, n)
	bad = strings.Fields(rows)
	return bad[:len(bad)-1], bad[len(bad)-1]
}

const (
	keyless = "keyless"
	large   = "large"
)

func states(ids []string, state string) string {
	var all []string
	for _, id := range ids {
		all = append(all, id+" "+state)
	}
	return strings.Join(all, ", ")
}

// Every tenth of many rows is refused: all others arrive. TEST_POISON_MANY says
// how many are refused.
func TestManyRefused(t *testing.T) {
	many := 10
	if text := os.Getenv("TEST_POISON_MANY"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		many = n
	}
	eachDelivery(t, func(t *testing.T, delivery string) {
		w := newWorld(t, delivery)
		w.makeDead()
		r := w.started(relay.PoisonDeadLetter)
		w.cluster.SetTopic(w.t, w.topic, "max.message.bytes=30000")
		before, began := r.Status().Sessions, time.Now()
		bad, last := w.writeCrowd(10*many, `n % 10 = 5`, large)
		harness.Await(t, patience*time.Duration(1+many/20), func() error {
			if got := w.text(`SELECT count(*)::text FROM outbox.dead WHERE state = 'dead-lettered'`); got != strconv.Itoa(many) {
				return fmt.Errorf("%s rows are set aside", got)
			}
			return nil
		})
		w.arrives(last)
		took := time.Since(began)
		t.Logf("%s: %d rows refused of %d: %d sessions, %s, %s for each", delivery, many, 10*many, r.Status().Sessions-before, took.Round(time.Millisecond), (took / time.Duration(len(bad))).Round(time.Millisecond))
		w.awaitDead(states(bad, "dead-lettered"))
		w.verify(r)
		w.absent(bad...)
	})
}
