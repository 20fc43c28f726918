package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

// docsFile is the documentation as seen from the root of the repository.
const docsFile = "docs/guarantees.md"

// promises is the part of the documentation that no run changes.
//
//go:embed promises.md
var promises string

// document is the whole of docsFile.
func (r *result) document() string {
	var b strings.Builder
	b.WriteString(promises)
	runs := fmt.Sprintf("the run of %s, seed %d", r.Date, r.Seed)
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
	fmt.Fprintf(&b, "This is %s, of commit %s: %d repetitions in %d minutes, Kafka %s, `OUTRIDER_WAL_SENDER_TIMEOUT=%s`, %g rows a second.\n\n",
		runs, commit, repetitions, (r.Seconds+59)/60, r.Kafka, r.Timeout, r.Rate)
	b.WriteString(r.table())
	b.WriteString("\n## The faults\n\n| fault | what happens |\n| --- | --- |\n")
	for _, f := range chaos.Faults() {
		fmt.Fprintf(&b, "| %s | %s |\n", f.Name, f.Description)
	}
	return b.String()
}
