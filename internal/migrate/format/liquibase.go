package format

import (
	"fmt"
	"regexp"
	"strings"
)

// liquibase reads SQL with its own words in comments. It runs a changeset as one
// statement if it is told not to split it, and the driver splits as Postgres does.
type liquibase struct{}

// liquibaseWord is a comment that Liquibase would obey wherever it stands, or
// refuse (AbstractFormattedChangeLogParser of its source).
var liquibaseWord = regexp.MustCompile(`(?im)^\s*(-+|/\*)\s*(liquibase|changeset|rollback|precondition|property|comment|validchecksum|ignore|tagdatabase|include).*`)

func (liquibase) files(c Change) ([]File, error) {
	up, err := liquibaseText(c.up())
	if err != nil {
		return nil, err
	}
	down, err := liquibaseText(c.down())
	if err != nil {
		return nil, err
	}
	if strings.Contains(down, "*/") {
		return nil, fmt.Errorf("liquibase ends a rollback at the first */, and %s has one", c.Name)
	}
	return []File{{
		Path: fmt.Sprintf("%03d_%s.sql", c.Version, c.Name),
		Text: "--liquibase formatted sql\n\n" +
			fmt.Sprintf("--changeset outrider:%s splitStatements:false stripComments:false rollbackSplitStatements:false rollbackStripComments:false\n", c.id()) +
			up + "\n/* liquibase rollback\n" + down + "*/\n",
	}}, nil
}

// id names a change among all that were ever printed for a project.
func (c Change) id() string {
	if c.first == c.Number {
		return fmt.Sprintf("%03d_%s", c.Version, c.Name)
	}
	return fmt.Sprintf("%03d_%s_from_%03d", c.Version, c.Name, c.first)
}

// liquibaseText leaves the comments between statements out, since what is an
// explanation to a reader may be an order to Liquibase.
func liquibaseText(script string) (string, error) {
	list, err := statements(script)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range list {
		if word := liquibaseWord.FindString(s.sql); word != "" {
			return "", fmt.Errorf("liquibase would take a comment as its own: %q", strings.TrimSpace(word))
		}
		b.WriteString(questions(s.sql) + "\n")
	}
	return b.String(), nil
}

// questions doubles the question marks of operators, such as @?: Liquibase
// prepares what it runs, for which the JDBC driver of Postgres counts each one
// as a parameter, and two as one that is none. It knows quotes.
func questions(sql string) string {
	var b strings.Builder
	for at := 0; at < len(sql); {
		from := at
		at += token(sql, at)
		if sql[from:at] == "?" {
			b.WriteByte('?')
		}
		b.WriteString(sql[from:at])
	}
	return b.String()
}
