package inboxtest_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What docs/consuming.md shows in Go stands in ../consumer/consumer.go.
func TestDocumentedCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/consuming.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("../consumer/consumer.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 || !strings.Contains(string(program), blocks[0][1]) {
		t.Errorf("../consumer/consumer.go has none of this: %q", blocks)
	}
}
