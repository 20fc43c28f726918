package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/examples/lab"
)

func TestMain(m *testing.M) {
	if lab.Role() != "" {
		_, _ = fmt.Fprintln(os.Stderr, serve())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestOnlyTheOutboxLosesNothing runs the example; its figures are those of the README.
func TestOnlyTheOutboxLosesNothing(t *testing.T) {
	var out bytes.Buffer
	if err := show(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(string(readme), line) {
			t.Errorf("the README does not show: %s", line)
		}
	}
}

func TestUnderChaos(t *testing.T) {
	var out bytes.Buffer
	if err := chaos(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
}
