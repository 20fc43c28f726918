package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"

	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// prefix of every variable that is ours.
const prefix = "OUTRIDER_"

// config is everything there is to set, composed of one struct an owner.
// docs/configuration.md and outrider config are made from its tags.
type config struct {
	relay.Config `doc:"The relay and its database"`

	Process struct {
		Sink      string     `env:"SINK" envDefault:"kafka" doc:"Where messages go: kafka, or stdout (one JSON object a line, for a look)."`
		HTTPAddr  string     `env:"HTTP_ADDR" envDefault:":8464" doc:"Address of /livez, /readyz, /status and /metrics. Port 0 takes a free one, which the log tells."`
		LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"INFO" doc:"DEBUG, INFO, WARN or ERROR."`
		LogFormat string     `env:"LOG_FORMAT" envDefault:"auto" doc:"text, json, or auto: text on a terminal, otherwise json."`
	} `doc:"The process"`

	Kafka kafka.Config `envPrefix:"KAFKA_" doc:"Kafka"`
}

// settings is a configuration, and where it came from.
type settings struct {
	config

	fields   []field // every variable there is, in the order of the documentation
	database string  // the PG* variables that stand in for DATABASE_URL, or ""
	unknown  []unknown
}

// load reads and checks the whole configuration. The error joins everything
// that is wrong, and settings are as good as they could be made despite it.
func load(environ []string) (*settings, error) {
	s, err := parse(environ)
	problems := s.resolve()
	return s, withCode(exitConfig, errors.Join(err, s.explain(problems), s.explain(s.check())))
}

// database reads what migrate needs, so that a Job which migrates needs no
// Kafka. No URL is no error here: migrate print needs none.
func (p process) database() (outboxAt, error) {
	s, err := parse(p.environ)
	return outboxAt{s.DatabaseURL, migrations.Names{Schema: s.Schema, Publication: s.Publication}}, withCode(exitConfig, err)
}

// parse reads the environment without asking whether the values make sense together.
func parse(environ []string) (*settings, error) {
	s := new(settings)
	var problems []error
	s.fields = fieldsOf(&s.config)
	vars := env.ToMap(environ)
	s.unknown = unknownNames(vars, s.fields)

	// A value that does not parse is reported under the variable's name, which
	// the library does not know in its errors, and then gives way to the
	// default: so it causes no second error where values are checked.
	for _, f := range s.fields {
		if err := f.parseAlone(vars); err != nil {
			problems = append(problems, hinted(fmt.Errorf("%s: %w", f.name, err), f.hint()))
			delete(vars, f.name)
		}
	}
	if err := env.ParseWithOptions(&s.config, env.Options{Prefix: prefix, Environment: vars}); err != nil {
		problems = append(problems, s.explain(flatten(err)))
	}
	for i := range s.fields {
		problems = append(problems, s.fields[i].readOrigin(vars))
	}
	if !s.DatabaseURL.IsSet() {
		s.database = libpqNames(vars)
	}
	return s, errors.Join(problems...)
}

// resolve fills in what derives from other values, where it is known which database is meant.
func (s *settings) resolve() error {
	url, err := s.DatabaseURL.Reveal()
	switch {
	case err != nil:
		return s.Validate() // parse has told of the file
	case !s.DatabaseURL.IsSet() && s.database == "":
		return errors.Join(hinted(errors.New(prefix+"DATABASE_URL is not set"), relay.Hint{
			Say: "give the address of the server itself, not of a pooler (or " + prefix + "DATABASE_URL_FILE, or PGHOST and its like)",
			Env: prefix + "DATABASE_URL=postgres://outrider@localhost:5432/app",
		}), s.Validate())
	case url == "" && s.database == "":
		return s.Validate() // parse has told of the empty file
	}
	before := make([]string, len(s.fields))
	for i, f := range s.fields {
		before[i] = f.text()
	}
	s.Config, err = s.Resolve()
	for i, f := range s.fields {
		if f.text() != before[i] {
			s.fields[i].origin = fromDerived
		}
	}
	return err
}

// check looks for what is wrong with those settings that main owns, and with those of the sink that is chosen.
func (s *settings) check() error {
	var errs []error
	switch s.Process.Sink {
	case "kafka":
		errs = append(errs, s.Kafka.Validate())
	case "stdout":
	default:
		errs = append(errs, fmt.Errorf("%sSINK=%q: kafka or stdout", prefix, s.Process.Sink))
	}
	if !slices.Contains([]string{"auto", "text", "json"}, s.Process.LogFormat) {
		errs = append(errs, fmt.Errorf("%sLOG_FORMAT=%q: auto, text or json", prefix, s.Process.LogFormat))
	}
	return errors.Join(errs...)
}

// explain adds to each error that names a variable and has no hint what the variable means.
func (s *settings) explain(err error) error {
	if err == nil {
		return nil
	}
	all := problems(err)
	for i, problem := range all {
		if relay.HintText(problem) != "" {
			continue
		}
		text, at, best := problem.Error(), -1, field{} // the first name in the text, and of those that begin there the longest
		for _, f := range s.fields {
			i := strings.Index(text, f.name)
			if i >= 0 && (at < 0 || i < at || i == at && len(f.name) > len(best.name)) {
				at, best = i, f
			}
		}
		if best.name != "" {
			all[i] = hinted(problem, best.hint())
		}
	}
	return errors.Join(all...)
}

// flatten turns the library's list of errors into one that problems takes apart.
func flatten(err error) error {
	if list, ok := errors.AsType[env.AggregateError](err); ok {
		return errors.Join(list.Errors...)
	}
	return err
}

// libpqNames lists those variables of libpq, as the PostgreSQL documentation
// names them, that say which database is meant; pgx reads them itself when it is
// given no URL. PGPASSWORD and the like say nothing about where to go.
func libpqNames(vars map[string]string) string {
	var names []string
	for _, name := range []string{"PGSERVICE", "PGHOST", "PGDATABASE"} {
		if vars[name] != "" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
