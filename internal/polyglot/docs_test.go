package polyglot_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/producing.md shows stands in the programs, line by line.
func TestDocumentedCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/producing.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("programs/*")
	if err != nil {
		t.Fatal(err)
	}
	programs := ""
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		programs += flat(string(text))
	}
	blocks := regexp.MustCompile("(?s)```(python|js|java|php)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 8 {
		t.Fatalf("%d blocks of code", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(programs, flat(b[2])) {
			t.Errorf("no program has this:\n%s", b[2])
		}
	}
}

// flat is text without indentation and empty lines.
func flat(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}
