package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestStatusCanBeReadAndPasted(t *testing.T) {
	const sent = `{"role":"halted","hint":"make it\n  CREATE PUBLICATION p;","lag_bytes":12345678901,"budget_full":false,
		"oldest":null,"empty":[],"conditions":[{"reason":"topic_missing","topic":"a"},{"reason":"x"}]}`
	from := json.NewDecoder(strings.NewReader(sent))
	from.UseNumber()
	var got bytes.Buffer
	if err := printObject(&got, from, ""); err != nil {
		t.Fatal(err)
	}
	want := `role: halted
hint:
  make it
    CREATE PUBLICATION p;
lag_bytes: 12345678901
budget_full: false
oldest: -
empty:
conditions:
  -
    reason: topic_missing
    topic: a
  -
    reason: x
`
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	for cut := range len(sent) {
		if err := printObject(&bytes.Buffer{}, json.NewDecoder(strings.NewReader(sent[:cut])), ""); err == nil {
			t.Errorf("no error although the answer ends after %d bytes", cut)
		}
	}
}
