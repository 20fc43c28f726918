package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckTimeout is what one probe may take; docker's default is 30 s.
const healthcheckTimeout = 3 * time.Second

func healthcheckCommand(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask /livez of the relay on this machine; for images without a shell",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthcheckTimeout)
			defer cancel()
			response, err := get(ctx, p.httpAddr(), "/livez")
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			why, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
			return errors.Join(fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(why))), err)
		},
	}
}

// httpAddr is where the relay with this environment listens. What else may be
// wrong with the configuration is not the business of who asks it.
func (p process) httpAddr() string {
	s, _ := parse(p.environ)
	return s.Process.HTTPAddr
}
