package orm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/outboxtest"
)

// TestSnippets: what docs/producing-go.md shows stands in these tests, line by
// line, indentation aside.
func TestSnippets(t *testing.T) {
	page, err := os.ReadFile("../../docs/producing-go.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.WriteString("\n" + flat(string(text)) + "\n")
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 8 {
		t.Errorf("%d snippets; the page has more", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ := strings.Cut(block, "```")
		if !strings.Contains(code.String(), "\n"+flat(block)+"\n") {
			t.Errorf("no test holds this:\n%s", block)
		}
	}
}

// flat takes the indentation off each line.
func flat(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

func TestExplain(t *testing.T) {
	var r outboxtest.Recorder
	write := func(m outbox.Message) error {
		_, err := outbox.Write(t.Context(), &r, outbox.Message{Topic: "t", ID: outbox.ID{1}}, m)
		return err
	}
	for want, err := range map[string]error{
		"950001 octets, 950000 at most": write(outbox.Message{Topic: "t", Payload: make([]byte, outbox.DefaultMaxBytes+1)}),
		"message 1, field Topic":        write(outbox.Message{}),
		"written before":                write(outbox.Message{Topic: "t", ID: outbox.ID{1}}),
		"not about a message":           errors.New("other"),
	} {
		if got := explain(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
