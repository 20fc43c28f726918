package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"strings"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/relay"
)

// docsFile is the documentation as seen from the root of the repository.
const docsFile = "docs/guarantees.md"

// promises is the part of the documentation that no run changes.
//
//go:embed promises.md
var promises string

// document is the whole of docsFile.
func document(kinds []*result) string {
	var b strings.Builder
	b.WriteString(promises)
	for _, r := range kinds {
		r.section(&b)
	}
	b.WriteString("## The faults\n\n| fault | what happens |\n| --- | --- |\n")
	for _, f := range chaos.Faults() {
		fmt.Fprintf(&b, "| %s | %s |\n", f.Name, f.Description)
	}
	return b.String()
}

// section is the table of one kind of run.
func (r *result) section(b *strings.Builder) {
	runs := fmt.Sprintf("The run of %s, seed %d", r.Date, r.Seed)
	if r.Runs > 1 {
		runs = fmt.Sprintf("%d runs, the last of %s with seed %d, added up", r.Runs, r.Date, r.Seed)
	}
	commit := r.Commit
	if commit == "" {
		commit = "unknown"
	}
	repetitions := 0
	for _, row := range r.Rows {
		repetitions += row.Repetitions
	}
	reader := ""
	if r.Reader == "java" {
		reader = ", read by the Java client"
	}
	fmt.Fprintf(b, "### %s, Kafka %s%s, `OUTRIDER_WAL_SENDER_TIMEOUT=%s`\n\n%s, of commit %s: %d repetitions, %g rows a second.\n\n",
		cmp.Or(r.Delivery, relay.AtLeastOnce), r.Kafka, reader, r.Timeout, runs, commit, repetitions, r.Rate)
	b.WriteString(r.table() + "\n")
}
