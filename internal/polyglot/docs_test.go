package polyglot_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/producing.md and docs/consuming.md show stands in the programs, line by line.
func TestDocumentedCode(t *testing.T) {
	var pages []byte
	for _, name := range []string{"producing.md", "consuming.md"} {
		page, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page...)
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
	blocks := regexp.MustCompile("(?s)```(python|js|java|php)\n(.*?)```").FindAllStringSubmatch(string(pages), -1)
	if len(blocks) < 11 {
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
