// Package secret holds values that must never be printed: passwords, and
// connection strings that may contain one. The type does the redacting, so
// that no log line, error or dump has to remember to.
package secret

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

const redacted = "REDACTED"

// Text is a secret given directly or as the name of a file that holds it. The
// zero value is an unset secret.
type Text struct {
	value string
	file  string
}

// New returns a secret with the given value.
func New(value string) Text { return Text{value: value} }

// FromFile returns a secret that is read from the file at each use, so that a
// rotated secret is picked up by the next connection without a restart.
func FromFile(path string) Text { return Text{file: path} }

// UnmarshalText implements [encoding.TextUnmarshaler], for package env.
func (t *Text) UnmarshalText(b []byte) error { t.value = string(b); return nil }

// IsSet reports whether a value or a file was given.
func (t Text) IsSet() bool { return t.value != "" || t.file != "" }

// File is the path of the file the secret is read from, or "".
func (t Text) File() string { return t.file }

// Reveal returns the secret. Call it at each connect and do not keep the
// result. White space at the end of a file, such as the newline that editors
// and Kubernetes secrets leave there, does not belong to the secret.
func (t Text) Reveal() (string, error) {
	if t.file == "" {
		return t.value, nil
	}
	b, err := os.ReadFile(t.file)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimRight(string(b), " \t\r\n"), nil
}

// String implements [fmt.Stringer] without telling the secret.
func (t Text) String() string {
	if !t.IsSet() {
		return ""
	}
	return redacted
}

// GoString implements [fmt.GoStringer], for %#v.
func (t Text) GoString() string { return t.String() }

// Format implements [fmt.Formatter]: no verb, not even %+v of a struct around it, tells the secret.
func (t Text) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, t.String()) }

// LogValue implements [slog.LogValuer].
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements [encoding.TextMarshaler], so that JSON is redacted too.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
