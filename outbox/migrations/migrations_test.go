package migrations_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

func TestFilesAreInOrder(t *testing.T) {
	all := migrations.All()
	if len(all) == 0 {
		t.Fatal("no migrations")
	}
	last := 0
	for _, m := range all {
		if m.Version <= last {
			t.Errorf("%s comes after number %d", m, last)
		}
		last = m.Version
		if len(m.Checksum()) != 64 {
			t.Errorf("%s: checksum %q", m, m.Checksum())
		}
	}
}

// quoted finds identifiers in double quotes.
var quoted = regexp.MustCompile(`"([a-z_.]+)"`)

// literal finds strings of JSON: a brace in single quotes, up to the last brace.
var literal = regexp.MustCompile(`'[^'\n]*\{[^'\n]*\}[^'\n]*'`)

// TestQuotedNamesAreReplaceable: what is in double quotes in a file is replaced,
// so nothing else may be, beside JSON. That must not hold such a name.
func TestQuotedNamesAreReplaceable(t *testing.T) {
	known := map[string]bool{"outbox": true, "outrider": true, "app": true, "relay": true, "consumer": true}
	files, err := migrations.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := migrations.Files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, json := range literal.FindAllString(string(text), -1) {
			for _, match := range quoted.FindAllStringSubmatch(json, -1) {
				if known[match[1]] {
					t.Errorf("%s: %q in JSON would be renamed", f.Name(), match[0])
				}
			}
		}
		for _, match := range quoted.FindAllStringSubmatch(literal.ReplaceAllString(string(text), ""), -1) {
			if !known[match[1]] {
				t.Errorf("%s: %q", f.Name(), match[0])
			}
		}
	}
}

func TestRenderPutsNamesIn(t *testing.T) {
	names := migrations.Names{Schema: "s1", Publication: "p1"}
	for _, m := range migrations.All() {
		var text string
		var err error
		if m.ForRole() {
			text, err = m.RenderRole(names, migrations.Role{Privilege: m.Privilege, Name: `we"ird`})
		} else {
			text, err = m.Render(names)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, left := range []string{`"outbox"`, `"outrider"`, `"app"`, `"relay"`, `"consumer"`, "outbox.events", "outbox.relays"} {
			if strings.Contains(text, left) {
				t.Errorf("%s: %s is left", m, left)
			}
		}
		if m.ForRole() && !strings.Contains(text, `TO "we""ird"`) {
			t.Errorf("%s grants to nobody", m)
		}
	}
}

// destructive are statements that a migration never runs, at the start of a line
// or of a branch; the functions that it makes may, and one that is new may be
// kept from PUBLIC.
var (
	functions   = regexp.MustCompile(`(?s)\$function\$.*?\$function\$|REVOKE EXECUTE ON FUNCTION "outbox"\.\w+\([a-z ,]*\) FROM PUBLIC;`)
	destructive = regexp.MustCompile(`(?im)^\s*(DROP|TRUNCATE|DELETE|UPDATE|REVOKE)\b`)
)

func TestNothingIsDropped(t *testing.T) {
	script, err := migrations.Script(migrations.Names{}, []migrations.Role{
		{Privilege: migrations.AppRole, Name: "a"}, {Privilege: migrations.RelayRole, Name: "r"}, {Privilege: migrations.ConsumerRole, Name: "c"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if found := destructive.FindString(functions.ReplaceAllString(script, "")); found != "" {
		t.Errorf("the script says %q", found)
	}
}

func TestNamesAreChecked(t *testing.T) {
	for _, bad := range []string{"Outbox", "a-b", `a"b`, "a'b", "a;b", "1a", " ", "pg_x", "information_schema", strings.Repeat("a", 64)} {
		if _, err := migrations.Script(migrations.Names{Schema: bad}, nil); err == nil {
			t.Errorf("schema %q was taken", bad)
		}
		if strings.HasPrefix(bad, "pg_") || bad == "information_schema" {
			continue
		}
		if _, err := migrations.Script(migrations.Names{Publication: bad}, nil); err == nil {
			t.Errorf("publication %q was taken", bad)
		}
	}
	for _, bad := range []migrations.Role{{Privilege: migrations.AppRole}, {Privilege: migrations.RelayRole, Name: "a\x00"}} {
		if _, err := migrations.Script(migrations.Names{}, []migrations.Role{bad}); err == nil {
			t.Errorf("role %+v was taken", bad)
		}
	}
}

// TestEveryUpHasADown: a migration tool that can go up only is half of one.
func TestEveryUpHasADown(t *testing.T) {
	files, err := migrations.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	ups := map[string]bool{}
	for _, m := range migrations.All() {
		ups[m.String()] = true
		if _, err := migrations.Files.ReadFile(m.String() + ".down.sql"); err != nil {
			t.Errorf("%s has no down file: %v", m, err)
		}
	}
	for _, f := range files {
		stem, down := strings.CutSuffix(f.Name(), ".down.sql")
		if down && !ups[stem] {
			t.Errorf("%s takes nothing back", f.Name())
		}
	}
}

// forgiving are words with which a down file would take along what is somebody
// else's, or pass over what is not there.
var forgiving = regexp.MustCompile(`(?i)\b(CASCADE|IF\s+EXISTS|CREATE\s+TABLE|TRUNCATE)\b`)

// comment is a whole line.
var comment = regexp.MustCompile(`(?m)^\s*--.*$`)

func TestDownIsExact(t *testing.T) {
	names := migrations.Names{Schema: "s1", Publication: "p1"}
	for _, m := range migrations.All() {
		var text string
		var err error
		if m.ForRole() {
			text, err = m.RenderDownRole(names, migrations.Role{Privilege: m.Privilege, Name: `we"ird`})
		} else {
			text, err = m.RenderDown(names)
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if found := forgiving.FindString(comment.ReplaceAllString(text, "")); found != "" {
			t.Errorf("%s down says %s", m, found)
		}
		for _, left := range []string{`"outbox"`, `"outrider"`, `"app"`, `"relay"`, "outbox.events", "outbox.relays"} {
			if strings.Contains(text, left) {
				t.Errorf("%s down: %s is left", m, left)
			}
		}
		if m.ForRole() && !strings.Contains(text, `FROM "we""ird"`) {
			t.Errorf("%s down takes from nobody", m)
		}
		if _, err := m.RenderDown(names); m.ForRole() && err == nil {
			t.Errorf("%s down was rendered for no role", m)
		}
	}
}
