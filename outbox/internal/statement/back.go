package statement

import (
	"errors"
	"fmt"
	"strings"
)

// ErrOther means that a statement is not one of Insert.
var ErrOther = errors.New("not an INSERT of package outbox")

// Rows returns the rows of a statement that Insert made.
func Rows(query string, args []any) ([]Row, error) {
	if !strings.HasPrefix(query, "INSERT INTO ") || !strings.Contains(query, columns) || len(args) != 7 {
		return nil, ErrOther
	}
	var fields [7][]*string
	for column, arg := range args {
		text, ok := arg.(string)
		switch {
		case !ok && arg != nil:
			return nil, fmt.Errorf("parameter %d is a %T: %w", column+1, arg, ErrOther)
		case !strings.HasSuffix(query, unnest) && arg == nil:
			fields[column] = []*string{nil}
		case !strings.HasSuffix(query, unnest):
			fields[column] = []*string{&text}
		default:
			elements, err := elements(text)
			if err != nil {
				return nil, fmt.Errorf("parameter %d: %w", column+1, err)
			}
			fields[column] = elements
		}
		if len(fields[column]) != len(fields[0]) {
			return nil, fmt.Errorf("parameter %d has %d rows, parameter 1 has %d: %w", column+1, len(fields[column]), len(fields[0]), ErrOther)
		}
	}
	rows := make([]Row, len(fields[0]))
	for i := range rows {
		if fields[0][i] == nil || fields[1][i] == nil {
			return nil, fmt.Errorf("row %d has no id or no topic: %w", i, ErrOther)
		}
		rows[i] = Row{
			ID: *fields[0][i], Topic: *fields[1][i], Key: fields[2][i], Type: fields[3][i],
			JSON: fields[4][i], Base64: fields[5][i], Headers: fields[6][i],
		}
	}
	return rows, nil
}

var errArray = errors.New("not the text of an array")

// elements reads what array writes.
func elements(text string) ([]*string, error) {
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return nil, errArray
	}
	var all []*string
	for {
		var element *string
		if after, null := strings.CutPrefix(rest, "NULL"); null {
			rest = after
		} else if element, rest, ok = quoted(rest); !ok {
			return nil, errArray
		}
		all = append(all, element)
		if rest == "}" {
			return all, nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, errArray
		}
	}
}

func quoted(text string) (element *string, rest string, ok bool) {
	if rest, ok = strings.CutPrefix(text, `"`); !ok {
		return nil, "", false
	}
	var b strings.Builder
	for {
		at := strings.IndexAny(rest, `"\`)
		if at < 0 {
			return nil, "", false
		}
		b.WriteString(rest[:at])
		if rest[at] == '"' {
			s := b.String()
			return &s, rest[at+1:], true
		}
		if at+1 == len(rest) {
			return nil, "", false
		}
		b.WriteByte(rest[at+1])
		rest = rest[at+2:]
	}
}
