package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary answer as outrider, so that scripts and tests
// drive the real thing: arguments in, exit code out.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"outrider": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv(quickExit())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// quickExit is a variable that spares each process of ours the second for
// which the race detector waits at its exit.
func quickExit() (name, value string) { return "GORACE", "atexit_sleep_ms=0" }

// exits CODE COMMAND... runs a command and fails unless it leaves with exactly that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = err.Error() // "exit status 78"
	}
	if code != "exit status "+args[0] && code != args[0] {
		ts.Fatalf("%v: want exit status %s", err, args[0])
	}
}
