package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func statusCommand(p process) *cobra.Command {
	var addr string
	var raw bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running relay is doing, and what it needs",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if addr == "" {
				addr = p.httpAddr()
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			return showStatus(ctx, p.stdout, addr, raw)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", "host:port of the relay (default: "+prefix+"HTTP_ADDR on this machine)")
	cmd.Flags().BoolVar(&raw, "json", false, "print the JSON as it is")
	return cmd
}

func showStatus(ctx context.Context, w io.Writer, addr string, raw bool) error {
	response, err := get(ctx, addr, "/status")
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	switch {
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s", addr, response.Status)
	case raw:
		_, err = io.Copy(w, response.Body)
	default:
		from := json.NewDecoder(response.Body)
		from.UseNumber()
		err = printObject(w, from, "")
	}
	if err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	return nil
}

// printObject prints a JSON value one key a line in the order of the sender,
// and text of several lines, such as a hint, so that it can be read and pasted.
// It knows no key: a client of another version than the relay's shows everything.
func printObject(w io.Writer, from *json.Decoder, indent string) error {
	token, err := from.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return printScalar(w, token, indent)
	}
	if indent != "" {
		_, _ = fmt.Fprintln(w)
	}
	for from.More() {
		label := "-"
		if open == '{' {
			key, err := from.Token()
			if err != nil {
				return err
			}
			label = fmt.Sprint(key, ":")
		}
		if _, err := fmt.Fprint(w, indent, label); err != nil {
			return err
		}
		if err := printObject(w, from, indent+"  "); err != nil {
			return err
		}
	}
	_, err = from.Token()
	return err
}

func printScalar(w io.Writer, value any, indent string) error {
	text := " -"
	if value != nil {
		text = " " + fmt.Sprint(value)
	}
	if strings.Contains(text, "\n") {
		text = "\n" + indent + strings.ReplaceAll(text[1:], "\n", "\n"+indent)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
