package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The rules of the house that no linter knows. .golangci.yml says the same of
// the directions for single imports; here they hold for what is behind an import, too.

const module = "github.com/outrider-cdc/outrider"

// directions says what a package must not reach. Tests may reach anything.
var directions = []struct {
	from  string   // package below the module, /... for all below it
	never []string // import paths, with what is below them; "." is everything outside the standard library
	deep  bool     // also through other packages
	why   string
}{
	{
		"/relay/internal/pgoutput",
		[]string{"."},
		true,
		"bytes in, values out: a decoder that can be read, fuzzed and reused alone",
	},
	{
		"/relay/...",
		[]string{module + "/sinks", "github.com/twmb/franz-go"},
		true,
		"the engine knows Postgres and the Sink interface; a second sink must cost it nothing",
	},
	{
		"/relay/...",
		[]string{module + "/outbox"},
		true,
		"the contract with applications is the table: an INSERT from any language counts as much as our library",
	},
	{
		"/sinks/...",
		[]string{"github.com/jackc"},
		false,
		"a sink that knows Postgres cannot be tested without one, nor used behind another source",
	},
	{
		"/sinks/kafka",
		[]string{module + "/sinks", module + "/outbox"},
		true,
		"sinks share the contract in package relay and nothing else",
	},
	{
		"/sinks/stdout",
		[]string{module + "/sinks", module + "/outbox", "github.com/twmb/franz-go"},
		true,
		"sinks share the contract in package relay and nothing else",
	},
	{
		"",
		[]string{module + "/internal/harness", module + "/internal/chaos", "github.com/twmb/franz-go/pkg/kfake", "testing"},
		true,
		"test servers do not belong into the binary that people deploy",
	},
	{
		"/internal/secret",
		[]string{"."},
		true,
		"every package may use it, so it must bring nothing along",
	},
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

func TestDependenciesGoOneWay(t *testing.T) {
	packages := goList(t, ".")
	for _, d := range directions {
		found := false
		for _, p := range packages {
			below, ok := strings.CutPrefix(p.ImportPath, module)
			if tree, all := strings.CutSuffix(d.from, "/..."); !ok || below != d.from && (!all || !within(below, tree)) {
				continue
			}
			found = true
			reached := p.Imports
			if d.deep {
				reached = p.Deps
			}
			for _, dep := range reached {
				for _, never := range d.never {
					if within(dep, never) || never == "." && !isStandard(dep) {
						t.Errorf("%s reaches %s, and must not: %s", p.ImportPath, dep, d.why)
					}
				}
			}
		}
		if !found {
			t.Errorf("no package %s: the table of directions is old", d.from)
		}
	}
}

// Applications import outbox: what it requires, they require.
func TestOutboxNeedsTheStandardLibraryOnly(t *testing.T) {
	for _, p := range goList(t, "outbox") {
		for _, dep := range p.Deps {
			if !isStandard(dep) && !within(dep, module+"/outbox") {
				t.Errorf("%s reaches %s", p.ImportPath, dep)
			}
		}
	}
}

func within(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

// isStandard knows that only hosts have a dot in the first element of a path.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func goList(t *testing.T, dir string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for from := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := from.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	documented := map[string]bool{}
	eachGoFile(t, func(path string, source []byte) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		want := "Package " + file.Name.Name + " "
		if file.Name.Name == "main" {
			want = "Command "
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || strings.HasPrefix(file.Doc.Text(), want)
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

// Longest files, in lines. A file that is better whole says why in a line that begins with longFile.
const (
	maxLines     = 300
	maxTestLines = 500
	longFile     = "//house:long "
)

func TestFilesCanBeHeldInView(t *testing.T) {
	eachGoFile(t, func(path string, source []byte) {
		limit := maxLines
		if strings.HasSuffix(path, "_test.go") {
			limit = maxTestLines
		}
		if lines := bytes.Count(source, []byte("\n")); lines > limit && !bytes.Contains(source, []byte("\n"+longFile)) {
			t.Errorf("%s has %d lines, %d at most (or a line that begins with %qand says why)", path, lines, limit, longFile)
		}
	})
}

// A test that skips itself is one that nobody misses. Only harness.Missing may,
// because it fails where servers are required.
func TestNoTestSkipsItself(t *testing.T) {
	skip := regexp.MustCompile(`\b(t|b|f|tb)\.Skip(f|Now)?\(|\btesting\.Short\(\)`)
	eachGoFile(t, func(path string, source []byte) {
		if path == "house_test.go" || path == filepath.Join("internal", "harness", "harness.go") {
			return
		}
		if found := skip.Find(source); found != nil {
			t.Errorf("%s: %s…: use harness.Missing", path, found)
		}
	})
}

// eachGoFile visits the Go files of all modules.
func eachGoFile(t *testing.T, visit func(path string, source []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		source, err := os.ReadFile(path)
		if err == nil {
			visit(path, source)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
