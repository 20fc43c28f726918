// Command outrider streams the rows of a transactional outbox table from
// Postgres' logical replication to Kafka. This package is the composition root:
// environment → sink → relay, one file a subcommand. It is the only one that
// touches the process: arguments, environment, signals, exit code.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, again := onSignals()
	os.Exit(run(ctx, process{os.Environ(), os.Stdout, os.Stderr, again}, os.Args[1:]))
}

// process is what commands may touch of the process that they run in.
type process struct {
	environ        []string
	stdout, stderr io.Writer
	again          <-chan struct{} // closed by the second signal: leave at once
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, p process, args []string) int {
	root := &cobra.Command{
		Use:           "outrider",
		Short:         "Streams a transactional outbox from Postgres to Kafka.",
		Long:          "Streams a transactional outbox from Postgres to Kafka. Everything is set by environment variables: see outrider config.",
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, // exitCode prints them
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.AddCommand(
		runCommand(p),
		migrateCommand(p.database),
		relaysCommand(p.database),
		deadletterCommand(p.relayConfig),
		configCommand(p),
		statusCommand(p),
		healthcheckCommand(p),
		versionCommand(p),
	)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse(err) })
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	return exitCode(p.stderr, root.ExecuteContext(ctx))
}

// onSignals returns a context that the first SIGINT or SIGTERM ends and a
// channel that the second closes.
func onSignals() (context.Context, <-chan struct{}) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	again := make(chan struct{})
	go func() { // lives as long as the process
		<-signals
		stop()
		<-signals
		close(again)
	}()
	return ctx, again
}
