package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func versionCommand(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			_, err := fmt.Fprintf(p.stdout, "outrider %s (revision %s, %s, %s)\n", b.version, b.revision, b.golang, b.platform)
			return err
		},
	}
}
