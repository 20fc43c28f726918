package format_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/migrate/format"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

func roles() []migrations.Role {
	return []migrations.Role{{Privilege: migrations.AppRole, Name: "a"}, {Privilege: migrations.AppRole, Name: `b"c`}, {Privilege: migrations.RelayRole, Name: "r"}}
}

// TestPlainIsTheScript: what applications have in package migrations is what is printed.
func TestPlainIsTheScript(t *testing.T) {
	for _, names := range []migrations.Names{{}, {Schema: "s1", Publication: "p1"}} {
		for _, only := range [][]migrations.Privilege{nil, {migrations.Owner}, {migrations.AppRole, migrations.RelayRole}} {
			want, err := migrations.Script(names, roles(), only...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := format.One(format.Options{Format: "sql", Names: names, Roles: roles(), Only: only})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v %v (-Script +printed):\n%s", names, only, diff)
			}
		}
	}
}

// TestFilesAreNamedAsTheToolWants also says how numbers and a base are written.
func TestFilesAreNamedAsTheToolWants(t *testing.T) {
	for name, want := range map[string][]string{
		"sql":            {"003_s1_events.up.sql", "003_s1_events.down.sql"},
		"goose":          {"00003_s1_events.sql"},
		"golang-migrate": {"000003_s1_events.up.sql", "000003_s1_events.down.sql"},
		"flyway":         {"V3__s1_events.sql", "U3__s1_events.sql"},
		"liquibase":      {"003_s1_events.sql"},
		"alembic":        {"outrider_003_s1_events.py"},
		"django":         {"0003_s1_events.py"},
		"prisma":         {"00000000000003_s1_events/migration.sql", "00000000000003_s1_events/down.sql"},
	} {
		o := format.Options{Format: name, Names: migrations.Names{Schema: "s1"}, From: 3, To: 3, After: "x"}
		if diff := cmp.Diff(want, paths(t, o)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		o.Base = 20260131120000
		for i, path := range paths(t, o) {
			if with := regexp.MustCompile(`0*3_`).ReplaceAllString(want[i], "20260131120003_"); path != with {
				t.Errorf("%s with a base: %s, want %s", name, path, with)
			}
		}
	}
	if names := format.Names(); len(names) != 8 || names[0] != "sql" {
		t.Errorf("formats %q", names)
	}
}

func paths(t *testing.T, o format.Options) []string {
	t.Helper()
	files, err := format.Folder(o)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		list = append(list, f.Path)
	}
	return list
}

// TestEveryFormatHasAll: each migration is in each format, with its note, and
// printing again gives the same bytes.
func TestEveryFormatHasAll(t *testing.T) {
	for _, name := range format.Names() {
		o := format.Options{Format: name, Roles: roles(), Owner: "o"}
		files, err := format.Folder(o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := format.Folder(o)
		if err != nil || !slices.Equal(files, again) {
			t.Errorf("%s differs the second time (%v)", name, err)
		}
		var all strings.Builder
		for _, f := range files {
			all.WriteString(f.Text)
		}
		text := strings.ReplaceAll(all.String(), `\"`, `"`)
		for _, m := range migrations.All() {
			wants := []string{m.Checksum(), fmt.Sprintf("version = %d;", m.Version)}
			if m.ForRole() {
				wants = nil
			}
			for _, want := range wants {
				if strings.Count(text, want) < 1 {
					t.Errorf("%s lacks %s of %s", name, want, m)
				}
			}
		}
		for _, want := range []string{`TO "a";`, `TO "b""c";`, `TO "r";`, `FROM "a";`, `FROM "b""c";`, `FROM "r";`, `SET LOCAL ROLE "o";`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
	}
}

func TestOptionsThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		o       format.Options
		message string
	}{
		{format.Options{Format: "rails"}, "write one of sql, goose"},
		{format.Options{Format: "goose", Direction: format.Down}, "both directions"},
		{format.Options{Format: "sql", From: 5, To: 4}, "lower one"},
		{format.Options{Format: "sql", From: -1}, "lower one"},
		{format.Options{Format: "sql", From: 900}, "nothing to print"},
		{format.Options{Format: "sql", From: 6, To: 7}, "no role was named"},
		{format.Options{Format: "sql", Base: 100_000_000_000_000}, "14 digits"},
		{format.Options{Format: "sql", Owner: "a\x00"}, "owner"},
		{format.Options{Format: "sql", Names: migrations.Names{Schema: "a;b"}}, "schema name"},
		{format.Options{Format: "alembic", From: 3}, "003 follows another one"},
		{format.Options{Format: "django", Only: []migrations.Privilege{migrations.Publication}}, "005 follows another one"},
		{format.Options{Format: "flyway", Owner: "${x}"}, "name a folder"},
		{format.Options{Format: "liquibase", Owner: "*/"}, "ends a rollback"},
		{format.Options{Format: "liquibase", Owner: "a\n--rollback b"}, "as its own"},
		{format.Options{Format: "goose", Owner: "\n-- +goose Down"}, "as its own"},
	} {
		if _, err := format.One(c.o); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.message)
		}
	}
}

var bodies = regexp.MustCompile(`(?s)\$function\$.*?\$function\$`)

// TestOneFileOfADirection: where a tool has a file a direction, one of them is printed.
func TestOneFileOfADirection(t *testing.T) {
	for _, name := range []string{"sql", "golang-migrate", "flyway", "prisma"} {
		for direction, want := range map[format.Direction]string{format.Both: "CREATE TABLE", format.Up: "CREATE TABLE", format.Down: "DROP TABLE"} {
			text, err := format.One(format.Options{Format: name, Direction: direction})
			if err != nil {
				t.Errorf("%s %s: %v", name, direction, err)
			}
			text = bodies.ReplaceAllString(text, "") // functions make and drop partitions
			if !strings.Contains(text, want) || strings.Contains(text, "CREATE TABLE") == strings.Contains(text, "DROP TABLE") {
				t.Errorf("%s %s prints the other direction", name, direction)
			}
		}
	}
	for _, path := range paths(t, format.Options{Format: "golang-migrate", Direction: format.Down}) {
		if !strings.HasSuffix(path, ".down.sql") {
			t.Errorf("down has %s", path)
		}
	}
}

func TestWriteOverwritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	files, err := format.Folder(format.Options{Format: "prisma"})
	if err != nil {
		t.Fatal(err)
	}
	written, err := format.Write(dir, files)
	if err != nil || len(written) != len(files) {
		t.Fatalf("wrote %d of %d: %v", len(written), len(files), err)
	}
	if written, err := format.Write(dir, files); err != nil || len(written) != 0 {
		t.Errorf("wrote %q again: %v", written, err)
	}
	edited, gone := filepath.Join(dir, files[2].Path), filepath.Join(dir, files[0].Path)
	if err := os.WriteFile(edited, []byte("-- mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if _, err := format.Write(dir, files); err == nil || !strings.Contains(err.Error(), edited+" is there with other content") {
		t.Errorf("over an edited file: %v", err)
	}
	if text, _ := os.ReadFile(edited); string(text) != "-- mine\n" {
		t.Error("the edited file was overwritten")
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("something was written although a file was refused")
	}
}
