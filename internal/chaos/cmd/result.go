package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/outrider-cdc/outrider/relay"
)

// result is one run; CHAOS_JSON gets it as one line.
type result struct {
	Date     string  `json:"date"`
	Commit   string  `json:"commit,omitempty"`
	Seed     uint64  `json:"seed"`
	Seconds  int     `json:"seconds"`
	Kafka    string  `json:"kafka"`
	Timeout  string  `json:"wal_sender_timeout"`
	Rate     float64 `json:"rows_per_second"`
	Delivery string  `json:"delivery,omitempty"` // "" is at-least-once
	Reader   string  `json:"reader,omitempty"`   // "" is franz-go
	Runs     int     `json:"runs"`               // above 1 if several were added up
	Rows     []row   `json:"rows"`
}

// row is all repetitions of a fault on a major.
type row struct {
	Fault       string    `json:"fault"`
	Major       int       `json:"major"`
	Postgres    string    `json:"postgres"`
	Repetitions int       `json:"repetitions"`
	Void        int       `json:"void"`
	Failed      int       `json:"failed"`
	Committed   int       `json:"committed"`
	Lost        int       `json:"lost"`
	Ghosts      int       `json:"ghosts"`
	OutOfOrder  int       `json:"out_of_order"`
	LastValue   int       `json:"last_value_errors"`
	Duplicates  int       `json:"duplicates"`
	Flowing     []float64 `json:"seconds_until_flowing"` // one a repetition
	Failures    []failure `json:"failures,omitempty"`
}

type failure struct {
	Seed  uint64 `json:"seed"`
	Error string `json:"error"`
}

// add adds up two rows of one fault and major.
func (r *row) add(o row) {
	r.Postgres = o.Postgres
	r.Repetitions += o.Repetitions
	r.Void += o.Void
	r.Failed += o.Failed
	r.Committed += o.Committed
	r.Lost += o.Lost
	r.Ghosts += o.Ghosts
	r.OutOfOrder += o.OutOfOrder
	r.LastValue += o.LastValue
	r.Duplicates += o.Duplicates
	r.Flowing = append(r.Flowing, o.Flowing...)
	r.Failures = append(r.Failures, o.Failures...)
}

// headline says what was run.
func (r *result) headline() string {
	return fmt.Sprintf("%s, commit %s, seed %d, %d s; Kafka %s, wal_sender_timeout %s, %g rows/s\n",
		r.Date, r.Commit, r.Seed, r.Seconds, r.Kafka, r.Timeout, r.Rate)
}

// table is Markdown that can also be read as it is.
func (r *result) table() string {
	cells := [][]string{{
		"fault", "Postgres", "repetitions", "void", "failed", "committed", "lost", "ghosts", "out of order",
		"last value wrong", "duplicates", "seconds until flowing (median, worst)",
	}}
	for _, row := range r.Rows {
		line := []string{row.Fault, row.Postgres}
		for _, n := range []int{
			row.Repetitions, row.Void, row.Failed, row.Committed, row.Lost, row.Ghosts, row.OutOfOrder,
			row.LastValue, row.Duplicates,
		} {
			line = append(line, fmt.Sprint(n))
		}
		cells = append(cells, append(line, medianAndWorst(row.Flowing)))
	}
	return aligned(cells)
}

func aligned(cells [][]string) string {
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	rule := make([]string, len(widths))
	for i, width := range widths {
		rule[i] = strings.Repeat("-", width-1) + ":"
		if i < 2 {
			rule[i] = strings.Repeat("-", width)
		}
	}
	var b strings.Builder
	for _, line := range slices.Insert(slices.Clone(cells), 1, rule) {
		for i, cell := range line {
			if i < 2 {
				fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", widths[i], cell)
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}

func medianAndWorst(seconds []float64) string {
	if len(seconds) == 0 {
		return "–"
	}
	sorted := slices.Sorted(slices.Values(seconds))
	return fmt.Sprintf("%.2f, %.2f", sorted[(len(sorted)-1)/2], sorted[len(sorted)-1])
}

// save appends the run to the file of runs and writes the documentation, as
// far as they are asked for. Without repetitions the documentation is written of
// the runs in the file alone.
func (r *result) save(o *options) error {
	shown := []*result{r}
	if o.json != "" {
		if o.repeat > 0 || o.duration > 0 {
			if err := r.appendTo(o.json); err != nil {
				return err
			}
		}
		var err error
		if shown, err = summed(o.json); err != nil {
			return err
		}
	}
	if !o.docs || len(shown) == 0 {
		return nil
	}
	if err := os.WriteFile(docsFile, []byte(document(shown)), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", docsFile, err)
	}
	return nil
}

func (r *result) appendTo(file string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("save the run: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save the run: %w", err)
	}
	return nil
}

// summed adds up the runs in a file, each kind by itself: those with the same
// settings, made of the commit of the last one of that kind. A tree
// with changes is no commit: two of them under one name may be different, and
// only the last run counts.
func summed(file string) (sums []*result, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the runs: %w", err)
	}
	var runs []*result
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	last := map[kind]*result{}
	for lines.Scan() {
		one := &result{}
		if err := json.Unmarshal(lines.Bytes(), one); err != nil {
			return nil, fmt.Errorf("read the runs: %w", err)
		}
		one.Delivery = cmp.Or(one.Delivery, relay.AtLeastOnce)
		runs = append(runs, one)
		last[one.kind()] = one
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the runs: %w", err)
	}
	for _, one := range runs {
		newest := last[one.kind()]
		if one != newest && (one.Commit != newest.Commit || newest.Commit == "" || strings.HasSuffix(newest.Commit, dirty)) {
			continue
		}
		at := slices.IndexFunc(sums, func(have *result) bool { return have.kind() == one.kind() })
		if at < 0 {
			at = len(sums)
			sums = append(sums, &result{Commit: one.Commit, Kafka: one.Kafka, Timeout: one.Timeout, Rate: one.Rate, Delivery: one.Delivery, Reader: one.Reader})
		}
		sums[at].add(one)
	}
	return sums, nil
}

// kind is what runs must have in common to be added up; each kind has a table,
// which names the commit that it is of.
type kind struct {
	delivery, kafka, reader, timeout string
	rate                             float64
}

func (r *result) kind() kind { return kind{r.Delivery, r.Kafka, r.Reader, r.Timeout, r.Rate} }

// add adds up runs of one kind.
func (r *result) add(one *result) {
	r.Runs++
	r.Date, r.Seed = one.Date, one.Seed
	r.Seconds += one.Seconds
	for _, o := range one.Rows {
		at := slices.IndexFunc(r.Rows, func(have row) bool { return have.Fault == o.Fault && have.Major == o.Major })
		if at < 0 {
			r.Rows = append(r.Rows, o)
		} else {
			r.Rows[at].add(o)
		}
	}
}

const dirty = "-dirty"

// commit is what git calls this tree, "" without git.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty="+dirty, "--abbrev=12").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
