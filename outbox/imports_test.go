package outbox_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/outrider-cdc/outrider/outbox"

// TestStandardLibraryOnly keeps the promise that importing this module raises
// nobody's versions: neither go.mod nor an import names anything else.
func TestStandardLibraryOnly(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mod), "\n") {
		switch directive, _, _ := strings.Cut(strings.TrimSpace(line), " "); directive {
		case "", "//", "module", "go":
		default:
			t.Errorf("go.mod: %q: this module has no requirements, replacements or toolchain", line)
		}
	}
	files := 0
	err = filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		files++
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imported := range parsed.Imports {
			name, err := strconv.Unquote(imported.Path.Value)
			if err != nil {
				return err
			}
			// The first element of a path outside the standard library has a dot.
			first, _, _ := strings.Cut(name, "/")
			if strings.Contains(first, ".") && name != module && !strings.HasPrefix(name, module+"/") {
				t.Errorf("%s imports %s", path, name)
			}
			if name == "C" {
				t.Errorf("%s uses cgo", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 3 {
		t.Errorf("looked at %d files; the module has more", files)
	}
}
