package statement

import (
	"reflect"
	"strings"
	"testing"
)

func FuzzThereAndBack(f *testing.F) {
	f.Add("a", `"\`, true, "NULL")
	f.Add("{", "}", false, "")
	f.Fuzz(func(t *testing.T, topic, key string, null bool, payload string) {
		rows := []Row{{ID: "1", Topic: topic, Key: &key, JSON: &payload}, {ID: "2", Topic: key, Type: &topic, Base64: &key, Headers: &payload}}
		if null {
			rows[0].Key = nil
		}
		for _, given := range [][]Row{rows[:1], rows} {
			got, err := Rows(Into{"s", "t"}.Insert(given))
			if err != nil || !reflect.DeepEqual(got, given) {
				t.Errorf("%v, %v", got, err)
			}
		}
	})
}

// What is not an array must not make the reader read beyond it.
func FuzzElements(f *testing.F) {
	for _, text := range []string{"", "{", "{}", `{"`, `{"\`, `{"a"`, `{"a",`, "{NULL}", "{NULLx}", `{"a"}x`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := elements(text)
		if err == nil && len(all) == 0 {
			t.Error("no element and no error")
		}
	})
}

func TestOtherStatements(t *testing.T) {
	query, args := Into{"s", "t"}.Insert([]Row{{Topic: "t"}, {Topic: "t"}})
	for name, c := range map[string]struct {
		query string
		args  []any
	}{
		"other":               {"SELECT 1", nil},
		"too few parameters":  {query, args[:6]},
		"no text":             {query, []any{1, 2, 3, 4, 5, 6, 7}},
		"arrays of two sizes": {query, []any{`{"1"}`, `{"t","t"}`, "{NULL}", "{NULL}", "{NULL}", "{NULL}", "{NULL}"}},
		"no topic":            {query, []any{`{"1"}`, "{NULL}", "{NULL}", "{NULL}", "{NULL}", "{NULL}", "{NULL}"}},
	} {
		if _, err := Rows(c.query, c.args); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNamesAreQuoted(t *testing.T) {
	query, _ := Into{`my "schema`, "Events"}.Insert([]Row{{}})
	if !strings.HasPrefix(query, `INSERT INTO "my ""schema"."Events" (`) {
		t.Error(query)
	}
}

func TestFit(t *testing.T) {
	large := strings.Repeat("a", maxBytes/4)
	rows := make([]Row, 10)
	for i := range rows {
		rows[i].JSON = &large
	}
	parts := 0
	for left := rows; len(left) > 0; parts++ {
		n := Fit(left)
		if n != 3 && n != len(left) {
			t.Errorf("%d of %d rows fit", n, len(left))
		}
		left = left[n:]
	}
	if parts != 4 {
		t.Errorf("%d parts", parts)
	}
	larger := strings.Repeat("a", maxBytes+1)
	if n := Fit([]Row{{JSON: &larger}, {}}); n != 1 {
		t.Errorf("%d rows, want the first alone", n)
	}
}
