package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// keyNames are keys as applications have them, and some that hurt: other
// scripts, spaces, quotes, long, empty (which is not null).
func keyNames(n int) []string {
	hard := []string{"", "заказ-1", "注文-2", "naïve ü", `quote"'\`, "🦊", " leading", strings.Repeat("long-", 40)}
	keys := make([]string, 0, n)
	for i := range n {
		if i%5 == 4 && i/5 < len(hard) {
			keys = append(keys, hard[i/5])
			continue
		}
		keys = append(keys, fmt.Sprintf("account-%02d", i))
	}
	return keys
}

// event is a row to be written: its content, and the columns.
type event struct {
	row      Row
	payload  *string           // column payload
	bytes    []byte            // column payload_bytes; nil: null
	headers  map[string]any    // column headers, without the counter
	arriving map[string][]byte // the same as it must arrive
	ownID    bool              // the id is ours; otherwise the database makes it
}

// largeValue is the size in bytes of a payload close to the table's limit of
// 950,000 for payload, key and headers together.
const largeValue = 948_000

// compose draws an event. The counter is not known yet.
func (wr *writer) compose(key int) event {
	e := event{ownID: wr.rng.IntN(5) > 0}
	e.row.ID = randomID(wr.rng)
	e.row.Topic = wr.load.cfg.Topics[wr.rng.IntN(len(wr.load.cfg.Topics))]
	if key >= 0 {
		e.row.Key, e.row.Keyed = wr.load.keys[key], true
	} else {
		wr.evidence.Unkeyed++
	}
	if wr.rng.IntN(4) > 0 {
		e.row.Type = "account.changed"
	}
	wr.composeValue(&e)
	e.headers, e.arriving = map[string]any{}, map[string][]byte{}
	e.header("writer", fmt.Sprint(wr.number))
	if wr.rng.IntN(8) == 0 {
		// A string arrives as its text, null as a null header, the rest as its JSON text.
		e.header("tenant", "Ünïcode \"quoted\" \n line")
		e.headers["nothing"], e.arriving["nothing"] = nil, nil
		e.headers["amount"], e.arriving["amount"] = json.Number("1.50"), []byte("1.50")
		e.headers["deep"], e.arriving["deep"] = map[string]any{"list": []int{1, 2}}, []byte(`{"list": [1, 2]}`)
		e.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	}
	return e
}

func (e *event) header(name, value string) {
	e.headers[name], e.arriving[name] = value, []byte(value)
}

func (wr *writer) composeValue(e *event) {
	switch n := wr.rng.IntN(20); {
	case wr.load.nextIsLarge():
		wr.evidence.Large++
		if n%2 == 0 {
			e.setBytes(wr.noise(largeValue))
		} else {
			e.setJSON(`{"pad":"` + strings.Repeat("x", largeValue-10) + `"}`)
		}
	case n == 0:
		wr.evidence.Tombstones++
		e.row.Tombstone = true
	case n <= 3:
		wr.evidence.Binary++
		e.setBytes(wr.noise(wr.rng.IntN(400)))
	case n == 4 && wr.rng.IntN(10) == 0:
		wr.evidence.Empty++
		e.setBytes([]byte{})
	case n == 5 && wr.rng.IntN(10) == 0:
		e.setJSON("null") // the JSON value, which is no tombstone
	case n == 6 && wr.rng.IntN(5) == 0:
		e.setJSON(`{"pad":"` + strings.Repeat("compressible ", 400+wr.rng.IntN(1000)) + `"}`)
	default:
		// The type json keeps the text as it is: blanks, order and repeated names.
		e.setJSON(fmt.Sprintf(`{"z": %d,   "a":"%x", "a" : "ü"}`, wr.rng.Uint32(), wr.noise(20+wr.rng.IntN(60))))
	}
}

func (e *event) setJSON(text string) {
	e.payload = &text
	e.row.Value = Hash([]byte(text))
}

func (e *event) setBytes(b []byte) {
	e.bytes = b
	e.row.Value = Hash(b)
}

// number gives the event its place in the order of its key.
func (e *event) number(n int64) {
	e.row.N = n
	e.row.Headers = 0
	for name, value := range e.arriving {
		e.row.Headers += HashHeader(name, value)
	}
}

// headersWith is the column headers with the counter in it.
func (e *event) headersWith(n int64) (string, error) {
	e.headers[HeaderCounter] = fmt.Sprint(n)
	text, err := json.Marshal(e.headers)
	return string(text), err
}

func (wr *writer) noise(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; {
		for u, j := wr.rng.Uint64(), 0; j < 8 && i < n; i, j, u = i+1, j+1, u>>8 {
			b[i] = byte(u)
		}
	}
	return b
}

// nextIsLarge spreads rows at the table's limit evenly over the run.
func (w *Workload) nextIsLarge() bool {
	return w.large.Add(1)%int64(w.cfg.LargeEvery) == 0
}

// randomID is a uuid of version 4.
func randomID(rng *rand.Rand) (id ID) {
	for i := range id {
		id[i] = byte(rng.Uint32())
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}
