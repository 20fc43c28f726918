package sqlapi_test

import (
	"os"
	"regexp"
	"testing"
)

// Every statement of docs/sql.md works, in the order of the page.
func testDocumentedSQL(t *testing.T, db database) {
	page, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	db.must(`CREATE TABLE orders (id int PRIMARY KEY, state text, total numeric); INSERT INTO orders VALUES (42, 'new', 1.10)`)
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 8 {
		t.Fatalf("%d blocks of SQL", len(blocks))
	}
	for _, block := range blocks {
		db.must(string(block[1]))
	}
	value := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindSubmatch(page)
	if got := db.text(`SELECT payload FROM outbox.events WHERE topic = 'order-changes'`); len(value) != 2 || got != string(value[1]) {
		t.Errorf("the captured change is %s", got)
	}
	want := []event{
		{"orders", "42", "OrderPaid", `{"order": 42, "state": "paid"}`, "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"order": 42, "state": "paid"}`, "NULL", `{"tenant": "acme"}`},
		{"pictures", "42", "NULL", "NULL", "89504e47", "NULL"},
		{"orders", "42", "NULL", "NULL", "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"total": 1.10}`, "NULL", "NULL"},
		{"orders", "42", "OrderPaid", `{"order": 42}`, "NULL", "NULL"},
		{"mails", "7", "NULL", "NULL", "48656c6c6f", `{"tenant": "acme"}`},
		{"orders", "42", "NULL", `{"order": 42}`, "NULL", `{"source": "shop", "tenant": "acme", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`},
	}
	db.must(`DELETE FROM outbox.events WHERE topic = 'order-changes'`)
	db.hasEvents(want...) // what was streamed is stored nowhere
}
