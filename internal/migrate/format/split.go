package format

import (
	"fmt"
	"regexp"
	"strings"
)

// statement is one of a script.
type statement struct {
	comment string // whole lines before it, "" or with a line end
	sql     string // with its semicolon
}

// atomic begins a function body with semicolons outside of quotes.
var atomic = regexp.MustCompile(`(?i)\bBEGIN\s+ATOMIC\b`)

// statements cuts a script where Postgres would: at semicolons outside of
// quotes, dollar quotes and comments (PostgreSQL, "Lexical Structure"). It is
// for our own files, which have no psql commands and no COPY data.
func statements(script string) ([]statement, error) {
	if found := atomic.FindString(script); found != "" {
		return nil, fmt.Errorf("%s: write the body in dollar quotes, tools cannot split this", found)
	}
	var list []statement
	comment, start := "", -1 // start of the statement, -1 between two
	for at := 0; at < len(script); {
		from := at
		at += token(script, at)
		part := script[from:at]
		switch {
		case start >= 0 && part == ";":
			list = append(list, statement{comment, script[start:at]})
			comment, start = "", -1
		case start >= 0 || strings.Trim(part, " \t\r\n;") == "":
		case strings.HasPrefix(part, "--") || strings.HasPrefix(part, "/*"):
			comment += strings.TrimRight(part, "\n") + "\n"
		default:
			start = from
		}
	}
	if start >= 0 {
		return nil, fmt.Errorf("no semicolon after %.40q", strings.TrimSpace(script[start:]))
	}
	return list, nil
}

// dollar begins a dollar quote.
var dollar = regexp.MustCompile(`^\$([A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$`)

// token is the length of the token at a place of script, as far as it matters
// where statements end: a comment, something quoted, or one byte.
func token(script string, at int) int {
	text, before := script[at:], byte(' ')
	if at > 0 {
		before = script[at-1]
	}
	switch {
	case strings.HasPrefix(text, "--"):
		return through(text, 2, "\n")
	case strings.HasPrefix(text, "/*"):
		return blockComment(text)
	case text[0] == '\'' && (before == 'E' || before == 'e'):
		return escapeString(text)
	case text[0] == '\'', text[0] == '"':
		return through(text, 1, text[:1]) // a doubled quote is two tokens side by side
	case text[0] == '$' && !inName(before):
		if tag := dollar.FindString(text); tag != "" {
			return through(text, len(tag), tag)
		}
	}
	return 1
}

func inName(b byte) bool {
	return b == '_' || b == '$' || b >= 0x80 || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// through is the length up to the end mark, looked for from start on.
func through(text string, start int, end string) int {
	i := strings.Index(text[start:], end)
	if i < 0 {
		return len(text)
	}
	return start + i + len(end)
}

func escapeString(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '\'':
			if !strings.HasPrefix(text[i:], "''") {
				return i + 1
			}
			i++
		}
	}
	return len(text)
}

// blockComment may be nested.
func blockComment(text string) int {
	depth := 0
	for i := 0; i+1 < len(text); i++ {
		switch text[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(text)
}
