package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

func TestStatements(t *testing.T) {
	for script, want := range map[string][]string{
		"":                                       nil,
		" -- only a comment\n/* and ; one */\n;": nil,
		"a; b ;":                                 {"a;", "b ;"},
		"a ';' b; c":                             nil, // an error
		`a ';''' ";""" ;b;`:                      {`a ';''' ";""" ;`, "b;"},
		`a E'\';' ; b e'\\'; c 'x\';`:            {`a E'\';' ;`, `b e'\\';`, `c 'x\';`},
		`E'a''\';b';c;`:                          {`E'a''\';b';`, "c;"},
		"a $$;$$ $x$ $$;$y$ $x$; b$1;c$x$;":      {"a $$;$$ $x$ $$;$y$ $x$;", "b$1;", "c$x$;"},
		"a -- ;'\n; b /* ; /* ; */ ; */ ;":       {"a -- ;'\n;", "b /* ; /* ; */ ; */ ;"},
		"é';';à$$;":                              {"é';';", "à$$;"},
	} {
		list, err := statements(script)
		var got []string
		for _, s := range list {
			got = append(got, s.sql)
		}
		if (err != nil) != (script == "a ';' b; c") || err == nil && !cmp.Equal(want, got) {
			t.Errorf("%q: %q (%v), want %q", script, got, err, want)
		}
	}
	list, err := statements("-- one\n-- two\na;\n-- three\n")
	if err != nil || len(list) != 1 || list[0].comment != "-- one\n-- two\n" {
		t.Errorf("comments: %q, %v", list, err)
	}
	if _, err := statements("CREATE FUNCTION f() BEGIN atomic SELECT 1; END;"); err == nil {
		t.Error("a body without quotes was split")
	}
}

func FuzzStatements(f *testing.F) {
	f.Add("a ';' $x$;$x$ /* ; */ -- ;\n;")
	f.Fuzz(func(t *testing.T, script string) {
		list, err := statements(script)
		if err != nil {
			return
		}
		rest := script
		for _, s := range list {
			at := strings.Index(rest, s.sql)
			if at < 0 || !strings.HasSuffix(s.sql, ";") {
				t.Fatalf("%q is no statement of %q", s.sql, script)
			}
			rest = rest[at+len(s.sql):]
		}
	})
}

// TestPythonReadsWhatWasMeant asks Python itself.
func TestPythonReadsWhatWasMeant(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		harness.Missing(t, fmt.Errorf("%w (apt-get install python3)", err))
	}
	texts := []string{
		"", `"`, `""`, `"""`, `""""`, `a"""b"`, `\`, `\"`, `"\`, `\n`, "a\nb", "a\r\nb\r", `'''`, `%s %% {x}`, "é\t\u2028", `$do$ \q`,
	}
	var literals []string
	for _, text := range texts {
		literals = append(literals, pythonString(text))
	}
	cmd := exec.CommandContext(t.Context(), python, "-")
	cmd.Stdin = strings.NewReader("import json\nprint(json.dumps([\n" + strings.Join(literals, ",\n") + "]))\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts, got); diff != "" {
		t.Errorf("Python reads (-meant +read):\n%s", diff)
	}
}

// TestOutsideOfATransaction: a tool that commits each statement by itself fails
// at once, since it would leave half a migration, and the role, behind.
func TestOutsideOfATransaction(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), postgres.Start(t, 0).URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "CREATE ROLE o SUPERUSER"); err != nil {
		t.Fatal(err)
	}
	list, err := statements(guarded("CREATE SCHEMA made;", "o"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // settings of the first time are there in the second
		for i, s := range list {
			_, err = conn.Exec(t.Context(), s.sql)
			if err == nil {
				continue
			}
			server, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || server.Code != "25P01" || !strings.Contains(server.Message, "one transaction") || i > 2 {
				t.Fatalf("statement %d: %v", i, err)
			}
			break
		}
		if err == nil {
			t.Fatal("it ran")
		}
	}
	var made bool
	var role string
	if err := conn.QueryRow(t.Context(), "SELECT to_regnamespace('made') IS NOT NULL, current_user").Scan(&made, &role); err != nil {
		t.Fatal(err)
	}
	if made || role == "o" {
		t.Errorf("made: %t, role %s", made, role)
	}
}
