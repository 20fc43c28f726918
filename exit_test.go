package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

func TestEveryProblemIsPrintedOnceWithItsHint(t *testing.T) {
	classified := fmt.Errorf("%w: %w", relay.ErrPoison, errors.New("too large")) // two errors, one problem
	err := withCode(exitPoison, errors.Join(
		errors.New("one"),
		errors.Join(hinted(errors.New("two\nlines"), relay.Hint{Say: "do", SQL: "SELECT 1;"}, relay.Hint{Say: "this"}), nil),
		classified,
	))
	var got bytes.Buffer
	if code := exitCode(&got, err); code != exitPoison {
		t.Errorf("exit code %d, want %d", code, exitPoison)
	}
	want := `error: one
error: two
  lines
hint: do
    SELECT 1;
  or: this
error: poison message: too large
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
	if code := exitCode(&got, errors.New("unmarked")); code != exitOperator {
		t.Errorf("exit code of an unmarked error %d, want %d", code, exitOperator)
	}
	if code := exitCode(&got, nil); code != exitOK {
		t.Errorf("exit code without an error %d", code)
	}
}
