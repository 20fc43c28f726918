package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/outrider-cdc/outrider/relay"
)

func configCommand(p process) *cobra.Command {
	var strict bool
	var output, acls, principal string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration and where each value comes from",
		Long: "Prints every variable with its effective value (secrets redacted) and where the value comes from.\n" +
			"What is wrong goes to stderr, all of it at once; then the exit code is 78.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			switch acls {
			case "":
			case aclsAll, aclsKafka, aclsSQL:
				return writeACLs(p, acls, principal)
			default:
				return misuse(fmt.Errorf("--acls %q: kafka, sql or all", acls))
			}
			switch output {
			case "text":
				return printConfig(p, strict)
			case "markdown":
				return writeReference(p.stdout)
			default:
				return misuse(fmt.Errorf("--output %q: text or markdown", output))
			}
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "refuse unknown names too, for a check before a deployment")
	cmd.Flags().StringVar(&output, "output", "text", "text, or markdown: the reference of all variables")
	cmd.Flags().StringVar(&acls, "acls", "", "print what the relay must be allowed instead: ACLs of Kafka (with AWS MSK IAM a policy) and grants of Postgres; =kafka or =sql prints one of them")
	cmd.Flags().Lookup("acls").NoOptDefVal = aclsAll
	cmd.Flags().StringVar(&principal, "principal", "", "with --acls: whom to allow in Kafka, such as User:app (default: from the SASL user or the certificate)")
	return cmd
}

// printConfig prints what run would work with. Unknown names are errors if strict, otherwise warnings.
func printConfig(p process, strict bool) error {
	s, problems := load(p.environ)
	if err := s.write(p.stdout); err != nil {
		return err
	}
	if strict {
		return withCode(exitConfig, errors.Join(problems, s.unknownNames()))
	}
	s.warn(p.stderr)
	return problems
}

// write prints one variable a line: name, value, origin.
func (s *settings) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range s.fields {
		value, origin := f.text(), f.origin
		if _, isSecret := f.secret(); isSecret && f.value.Addr().Interface() == any(&s.DatabaseURL) && s.database != "" {
			origin = s.database
		}
		if value == "" {
			value = "-"
		}
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\n", f.name, value, origin); err != nil {
			return err
		}
	}
	return table.Flush()
}

// unknownNames is an error a name that has our prefix and means nothing.
func (s *settings) unknownNames() error {
	errs := make([]error, len(s.unknown))
	for i, u := range s.unknown {
		errs[i] = fmt.Errorf("unknown variable %s", u.name)
		if u.nearest != "" {
			errs[i] = hinted(errs[i], relay.Hint{Say: "did you mean " + u.nearest + "?"})
		}
	}
	return errors.Join(errs...)
}

// warn prints the unknown names. They stop nothing: a rollback to a version
// that does not know a variable yet must still start.
func (s *settings) warn(w io.Writer) {
	if err := s.unknownNames(); err != nil {
		for _, problem := range problems(err) {
			printProblem(w, "warning", problem)
		}
	}
}
