package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The reference is generated, and a field that says nothing about itself is not finished.
func TestReferenceIsWhatTheTagsSay(t *testing.T) {
	var got bytes.Buffer
	if err := writeReference(&got); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/configuration.md is old; run: make generate\n%s", diff)
	}
	seen := map[string]bool{}
	for _, f := range fieldsOf(new(config)) {
		if f.doc == "" {
			t.Errorf("%s has no doc tag", f.name)
		}
		if f.section == "" {
			t.Errorf("%s is in no section", f.name)
		}
		names := []string{f.name}
		if _, ok := f.secret(); ok {
			names = append(names, f.name+"_FILE")
		}
		for _, name := range names {
			if seen[name] {
				t.Errorf("%s means two things", name)
			}
			seen[name] = true
		}
	}
}

// Each default must be a value that the field takes, and the whole must be valid but for what has none.
func TestDefaultsAreValid(t *testing.T) {
	if _, err := load([]string{"OUTRIDER_DATABASE_URL=postgres://localhost/shop", "OUTRIDER_SINK=stdout"}); err != nil {
		t.Error(err)
	}
}

func TestNearestName(t *testing.T) {
	var known []string
	for _, f := range fieldsOf(new(config)) {
		known = append(known, f.name)
	}
	for name, want := range map[string]string{
		"OUTRIDER_SLOOT":          "OUTRIDER_SLOT",
		"OUTRIDER_SLTO":           "OUTRIDER_SLOT",
		"OUTRIDER_BROKERS":        "OUTRIDER_KAFKA_BROKERS",
		"OUTRIDER_KAFKA_BROKER":   "OUTRIDER_KAFKA_BROKERS",
		"OUTRIDER_DATABASE_DSN":   "OUTRIDER_DATABASE_URL",
		"OUTRIDER_LOGLEVEL":       "OUTRIDER_LOG_LEVEL",
		"OUTRIDER_FAVOURITE_TUNE": "",
		"OUTRIDER_X":              "",
	} {
		if got := nearestName(name, known); got != want {
			t.Errorf("nearestName(%s) = %q, want %q", name, got, want)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"slot", "slot", 0}, {"sloot", "slot", 1}, {"slto", "slot", 1}, {"kitten", "sitting", 3}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := edits(c.b, c.a); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
