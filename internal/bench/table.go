package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table renders the results as Markdown that reads well on a terminal, too.
func (r *results) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cores (%s), Postgres %s", r.Cores, r.CPU, r.Postgres)
	if r.Kafka != "" {
		fmt.Fprintf(&b, ", Kafka %s", r.Kafka)
	}
	fmt.Fprintf(&b, ", %s; best of %d; %.1f minutes.\n", r.Go, r.Repeat, r.Minutes)
	if len(r.Settings) > 0 {
		fmt.Fprintf(&b, "\nThe relay ran with %s.\n", strings.Join(r.Settings, " "))
	}
	if len(r.Throughput) > 0 {
		b.WriteString("\n" + r.throughputTable())
	}
	if len(r.Latency) > 0 {
		fmt.Fprintf(&b, "\nLatency at %d events a second, in milliseconds:\n\n%s", r.Rate, r.latencyTable())
	}
	if len(r.Retention) > 0 {
		b.WriteString("\nFour writers, each committing row after row, while the relay deletes old rows, and while it does not:\n\n" + r.retentionTable())
	}
	if len(r.Gate) > 0 {
		b.WriteString("\nThe visibility gate, off and on, with transactions of one row:\n\n" + r.gateTable())
	}
	if len(r.Cost) > 0 {
		fmt.Fprintf(&b, "\nWhat an event of about 420 bytes costs the database, beside the business change of its transaction:\n\n%s", r.costTable())
	}
	if r.Idle != nil {
		b.WriteString("\nRelays with nothing to do:\n\n" + r.idleTable())
	}
	if len(r.Verdicts) > 0 {
		b.WriteString("\n" + r.verdictTable())
	}
	return b.String()
}

func (r *results) throughputTable() string {
	rows := [][]string{{
		"rows", "leg", "k rows/s", "÷ raw", "CPU-s/M", "walsender", "broker", "RSS MiB", "walsender", "broker", "others",
	}}
	for _, t := range r.Throughput {
		m := t.Best
		row := []string{
			t.Part, t.Leg, fmt.Sprintf("%.1f", m.Rate/1e3), "", fmt.Sprintf("%.2f", m.Process.CPU), "", "",
			fmt.Sprintf("%.0f", m.Process.Peak), "", "", fmt.Sprintf("%.2f", m.Others),
		}
		if t.Ratio > 0 {
			row[3] = fmt.Sprintf("%.2f", t.Ratio)
		}
		for i, s := range []*share{m.Walsender, m.Broker} {
			if s != nil {
				row[5+i], row[8+i] = fmt.Sprintf("%.2f", s.CPU), fmt.Sprintf("%.0f", s.Peak)
			}
		}
		rows = append(rows, row)
	}
	return markdown(rows, 2)
}

func (r *results) latencyTable() string {
	rows := [][]string{{"leg", "p50", "p99", "max", "events/s", "others"}}
	for _, l := range r.Latency {
		rows = append(rows, []string{
			l.Leg, fmt.Sprintf("%.2f", l.Best.P50), fmt.Sprintf("%.2f", l.Best.P99),
			fmt.Sprintf("%.1f", l.Best.Max), fmt.Sprintf("%.0f", l.Best.Rate), fmt.Sprintf("%.2f", l.Best.Others),
		})
	}
	return markdown(rows, 1)
}

func (r *results) verdictTable() string {
	rows := [][]string{{"", "what", "found", "limit", ""}}
	for _, v := range r.Verdicts {
		kind, sign, result := "aim", "≤", "miss"
		if v.Required {
			kind = "required"
		}
		if v.AtLeast {
			sign = "≥"
		}
		if v.Pass {
			result = "pass"
		}
		rows = append(rows, []string{kind, v.What, fmt.Sprintf("%.3f", v.Value), fmt.Sprintf("%s %g", sign, v.Limit), result})
	}
	return markdown(rows, 2)
}

// markdown renders rows, of which the first is the head; the first so many
// columns hold words, the others figures.
func markdown(rows [][]string, words int) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < words {
				b.WriteString("| " + cell + pad + " ")
			} else {
				b.WriteString("| " + pad + cell + " ")
			}
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i < words {
				b.WriteString("|" + strings.Repeat("-", width+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", width+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}
