package format

import (
	"fmt"
	"strings"
)

// goose has both directions in a file and takes scripts apart at line ends
// after semicolons, unless a statement is marked.
type goose struct{}

func (goose) files(c Change) ([]File, error) {
	up, err := gooseStatements(c.up())
	if err != nil {
		return nil, err
	}
	down, err := gooseStatements(c.down())
	if err != nil {
		return nil, err
	}
	return []File{{
		Path: fmt.Sprintf("%05d_%s.sql", c.Version, c.Name),
		Text: "-- +goose Up\n" + up + "\n-- +goose Down\n" + down,
	}}, nil
}

func gooseStatements(script string) (string, error) {
	list, err := statements(script)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range list {
		if strings.Contains(s.comment+s.sql, "+goose") {
			return "", fmt.Errorf("goose would take a word of this as its own: %.60q", s.sql)
		}
		fmt.Fprintf(&b, "\n%s-- +goose StatementBegin\n%s\n-- +goose StatementEnd\n", s.comment, s.sql)
	}
	return b.String(), nil
}
