package relay

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func own(b []byte) string { return string(b) }

func TestParseHeaders(t *testing.T) {
	for _, tc := range []struct {
		src  string
		want []Header
	}{
		{`{}`, nil},
		{`{"a": "b"}`, []Header{{"a", []byte("b")}}},
		{`{"a": "", "b": null}`, []Header{{"a", []byte("")}, {"b", nil}}},
		{`{"n": 1.10, "t": true, "o": {"x": [1, "}"]}, "l": []}`, []Header{
			{"n", []byte("1.10")}, {"t", []byte("true")}, {"o", []byte(`{"x": [1, "}"]}`)}, {"l", []byte("[]")},
		}},
		{`{"q\"k": "a\nbé\ud83d\ude00"}`, []Header{{`q"k`, []byte("a\nbé😀")}}},
		{"{\"ü\": \"ß\"}", []Header{{"ü", []byte("ß")}}},
		{` { "a" : "b" , "c" : 2 } `, []Header{{"a", []byte("b")}, {"c", []byte("2")}}},
	} {
		got, err := parseHeaders([]byte(tc.src), nil, own)
		if err != nil {
			t.Errorf("%s: %v", tc.src, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tc.src, diff)
		}
	}
}

func TestParseHeadersRefusesWhatIsNoObject(t *testing.T) {
	for _, src := range []string{
		``, `[]`, `"a"`, `null`, `{`, `{"a"`, `{"a":`, `{"a": }`, `{"a": "b"`, `{"a": "b",}`, `{"a": "b"} x`,
		`{a: 1}`, `{"a": 1 2}`, `{"a": 01}`, `{"a": [}`, "{\"a\": \"\x01\"}", "{\"a\": \"\xff\"}", `{"a": "\x"}`, `{"a": nul}`,
	} {
		if got, err := parseHeaders([]byte(src), nil, own); !errors.Is(err, errHeaders) {
			t.Errorf("%q: got %v, error %v; want %v", src, got, err, errHeaders)
		}
	}
}

// Whatever the scanner takes, encoding/json takes with the same values; and it takes every object that encoding/json takes.
func FuzzParseHeaders(f *testing.F) {
	f.Add([]byte(`{"a": "b", "n": 1, "o": {"x": [null]}, "e": "\u00e9"}`))
	f.Add([]byte(`{"a": "b"`))
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := parseHeaders(src, nil, own)
		var want map[string]json.RawMessage
		isObject := json.Unmarshal(src, &want) == nil && want != nil
		if err != nil {
			if isObject && json.Valid(src) && validText(src) {
				t.Fatalf("refused a valid object %q: %v", src, err)
			}
			return
		}
		if !isObject {
			t.Fatalf("took %q, which is no object", src)
		}
		last := map[string][]byte{}
		for _, h := range got {
			last[h.Key] = h.Value
		}
		for key, raw := range want {
			var s string
			value := last[key]
			switch {
			case string(raw) == "null":
				if value != nil {
					t.Fatalf("%q: null became %q", src, value)
				}
			case json.Unmarshal(raw, &s) == nil:
				if string(value) != s {
					t.Fatalf("%q: %s is %q, want %q", src, key, value, s)
				}
			case string(value) != string(raw):
				t.Fatalf("%q: %s is %q, want %q", src, key, value, raw)
			}
		}
	})
}

// validText: encoding/json replaces invalid UTF-8 silently, the scanner refuses it.
func validText(src []byte) bool { return string(src) == string([]rune(string(src))) }
