package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

// Exit codes. 2 is what the Go runtime leaves with after a panic.
const (
	exitOK       = 0
	exitOperator = 1  // a command did not work; run: halted, with EXIT_ON_HALT
	exitPoison   = 3  // run: halted at a message that cannot be published, with EXIT_ON_HALT
	exitConfig   = 78 // EX_CONFIG of sysexits.h: bad configuration or arguments
)

// exitError is an error that decides the exit code. Any other error leaves with exitOperator.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withCode marks err, if it is one, with the code to leave with.
func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// misuse is the error for arguments that make no sense.
func misuse(err error) error {
	return withCode(exitConfig, hinted(err, relay.Hint{Say: "outrider --help lists commands, outrider <command> --help their flags"}))
}

// knownCommand refuses what is not a subcommand.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return withCode(exitConfig, hinted(err, relay.Hint{Say: "did you mean this?", Shell: "outrider " + near[0]}))
	}
	return misuse(err)
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return misuse(err)
	}
	return nil
}

// hinted gives err ways out for the operator.
func hinted(err error, hints ...relay.Hint) error {
	return &relay.Halt{Reason: "configuration", Err: err, Hints: hints}
}

// exitCode prints err, one problem after the other, and returns the code to leave with.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	for _, problem := range problems(err) {
		printProblem(stderr, "error", problem)
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitOperator
}

// printProblem prints err below a label and its hint, if it has one, below that.
func printProblem(w io.Writer, label string, err error) {
	_, _ = fmt.Fprintf(w, "%s: %s\n", label, indented(err.Error()))
	if hint := relay.HintText(err); hint != "" {
		_, _ = fmt.Fprintf(w, "hint: %s\n", indented(hint))
	}
}

// indented keeps the further lines of a text apart from the next label.
func indented(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }

// problems takes apart what errors.Join put together, also inside an exitError.
// Errors that merely wrap two others, such as a class and a cause, stay whole.
func problems(err error) []error {
	if e, ok := err.(*exitError); ok { //nolint:errorlint // only the outermost shell is taken off
		return problems(e.err)
	}
	parts, ok := err.(interface{ Unwrap() []error })
	if !ok || !isJoin(err, parts.Unwrap()) {
		return []error{err}
	}
	var all []error
	for _, part := range parts.Unwrap() {
		all = append(all, problems(part)...)
	}
	return all
}

// isJoin reports whether err says its parts line by line and nothing else, as errors.Join does.
func isJoin(err error, parts []error) bool {
	lines := make([]string, len(parts))
	for i, part := range parts {
		lines[i] = part.Error()
	}
	return err.Error() == strings.Join(lines, "\n")
}
