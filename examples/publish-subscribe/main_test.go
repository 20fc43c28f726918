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
		_, _ = fmt.Fprintln(os.Stderr, play(lab.Role()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestEverybodyHears runs the example; it prints what the README shows, with and without chaos.
func TestEverybodyHears(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, chaos := range []bool{false, true} {
		t.Run(fmt.Sprintf("chaos=%t", chaos), func(t *testing.T) {
			var out bytes.Buffer
			if err := show(t.Context(), &out, chaos); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for line := range strings.Lines(out.String()) {
				if !strings.Contains(string(readme), line) {
					t.Errorf("the README does not show: %s", line)
				}
			}
		})
	}
}
