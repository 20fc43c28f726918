package format

import (
	"cmp"
	"fmt"
)

// django has both directions in a module of Python. Statements in a list have no
// parameters, so that Django leaves percent signs alone, and are not taken apart.
type django struct {
	app string
}

func (django) chained() {}

// defaultApp is the label that an application has whose folder is so called.
const defaultApp = "outbox"

func (d django) files(c Change) ([]File, error) {
	up, err := pythonStatements(c.up(), "                ", ",", pythonString)
	if err != nil {
		return nil, err
	}
	down, err := pythonStatements(c.down(), "                ", ",", pythonString)
	if err != nil {
		return nil, err
	}
	after := c.after
	if c.previous != nil {
		after = djangoName(*c.previous)
	}
	dependency := ""
	if after != "" {
		dependency = fmt.Sprintf("(%q, %q)", cmp.Or(d.app, defaultApp), after)
	}
	return []File{{
		Path: djangoName(c) + ".py",
		Text: fmt.Sprintf(djangoModule, dependency, up, down),
	}}, nil
}

func djangoName(c Change) string { return fmt.Sprintf("%04d_%s", c.Version, c.Name) }

const djangoModule = `"""Outbox of Outrider, for Postgres 14 to 18."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [%s]

    operations = [
        migrations.RunSQL(
            sql=[
%s            ],
            reverse_sql=[
%s            ],
        ),
    ]
`
