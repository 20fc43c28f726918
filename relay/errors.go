package relay

import (
	"errors"
	"strings"
)

// Hint is one way out for the operator, in a form that can be pasted.
type Hint struct {
	Say   string // in words; always set
	SQL   string // for psql, on the database of the outbox
	Env   string // NAME=value for the relay's environment; the relay must be restarted
	Shell string // for a terminal
	Then  string // SQL to run afterwards, once /status says leader
}

// Halt is an error that no retry heals until somebody acts. It wraps ErrFatal
// and carries what /status, the log and the terminal show.
type Halt struct {
	Reason string // stable, snake_case: label of a metric, key of docs
	Err    error  // what happened
	Hints  []Hint // ways out; at least one
}

// Error implements error.
func (h *Halt) Error() string { return h.Err.Error() }

// Unwrap makes errors.Is see both the class and the cause.
func (h *Halt) Unwrap() []error { return []error{ErrFatal, h.Err} }

// HintText renders the hints of the first Halt in err's tree, one a line; "" if there is none.
func HintText(err error) string {
	h, ok := errors.AsType[*Halt](err)
	if !ok {
		return ""
	}
	var b strings.Builder
	for i, hint := range h.Hints {
		if i > 0 {
			b.WriteString("\nor: ")
		}
		b.WriteString(hint.Say)
		for _, lines := range []string{hint.SQL, hint.Env, hint.Shell} {
			indent(&b, lines)
		}
		if hint.Then != "" {
			b.WriteString("\nand when /status says leader:")
			indent(&b, hint.Then)
		}
	}
	return b.String()
}

func indent(b *strings.Builder, lines string) {
	if lines != "" {
		b.WriteString("\n  " + strings.ReplaceAll(lines, "\n", "\n  "))
	}
}
