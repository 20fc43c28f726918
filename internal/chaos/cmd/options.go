package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay"
)

// options are what the environment says. Defaults are the run of make chaos.
type options struct {
	duration time.Duration  // FOR: all faults again and again until it is over; 0: as often as repeat says
	seed     uint64         // SEED
	repeat   int            // CHAOS_REPEAT: repetitions of each fault and major, without FOR; 0: only write the documentation of the runs in CHAOS_JSON
	faults   *regexp.Regexp // CHAOS_FAULTS
	majors   []int          // CHAOS_POSTGRES: 15 and 18, and of faults of certain majors all of those
	chosen   bool           // majors were given
	json     string         // CHAOS_JSON: file to which the run is appended, as one line
	docs     bool           // CHAOS_DOCS: write docsFile
	binary   string         // CHAOS_BINARY: a relay that was built already
	dir      string         // CHAOS_DIR: folder for the evidence of failures
	delivery string         // CHAOS_DELIVERY: OUTRIDER_DELIVERY of the relays
	kafka    string         // CHAOS_KAFKA: version of the brokers
	reader   string         // CHAOS_READER: the client that reads, java or franz-go
	timeout  time.Duration  // CHAOS_TIMEOUT: OUTRIDER_WAL_SENDER_TIMEOUT of the relays
	rate     float64        // CHAOS_RATE: rows per second
}

// parseOptions reads the variables. An empty one counts as unset, so that make can pass all on.
func parseOptions(lookup func(string) (string, bool)) (*options, error) {
	o := &options{seed: rand.Uint64(), repeat: 1, faults: regexp.MustCompile(""), majors: []int{15, 18}, timeout: 3 * time.Second, rate: 1000}
	var errs []error
	read := func(name string, take func(string) error) {
		if value, ok := lookup(name); ok && value != "" {
			if err := take(value); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
			}
		}
	}
	read("FOR", func(v string) (err error) { o.duration, err = time.ParseDuration(v); return err })
	read("SEED", func(v string) (err error) { o.seed, err = strconv.ParseUint(v, 10, 64); return err })
	read("CHAOS_REPEAT", func(v string) (err error) { o.repeat, err = strconv.Atoi(v); return err })
	read("CHAOS_FAULTS", func(v string) (err error) { o.faults, err = regexp.Compile(v); return err })
	read("CHAOS_POSTGRES", func(v string) (err error) { o.majors, err = parseMajors(v); o.chosen = true; return err })
	read("CHAOS_DOCS", func(v string) (err error) { o.docs, err = strconv.ParseBool(v); return err })
	read("CHAOS_TIMEOUT", func(v string) (err error) { o.timeout, err = time.ParseDuration(v); return err })
	read("CHAOS_RATE", func(v string) (err error) { o.rate, err = strconv.ParseFloat(v, 64); return err })
	for name, text := range map[string]*string{"CHAOS_DELIVERY": &o.delivery, "CHAOS_KAFKA": &o.kafka, "CHAOS_READER": &o.reader, "CHAOS_JSON": &o.json, "CHAOS_BINARY": &o.binary, "CHAOS_DIR": &o.dir} {
		read(name, func(v string) error { *text = v; return nil })
	}
	if o.repeat < 0 || o.repeat == 0 && (!o.docs || o.json == "") || o.rate <= 0 || o.duration < 0 || o.timeout < time.Second {
		errs = append(errs, errors.New("CHAOS_REPEAT (unless CHAOS_DOCS of CHAOS_JSON is all there is to do) and CHAOS_RATE must be above 0, FOR not negative, and CHAOS_TIMEOUT 1s at least"))
	}
	if o.reader != "" && o.reader != "franz-go" && o.reader != "java" {
		errs = append(errs, fmt.Errorf("CHAOS_READER=%q: franz-go or java", o.reader))
	}
	if o.delivery != "" && o.delivery != relay.AtLeastOnce && o.delivery != relay.ExactlyOnce {
		errs = append(errs, fmt.Errorf("CHAOS_DELIVERY=%q: %s or %s", o.delivery, relay.AtLeastOnce, relay.ExactlyOnce))
	}
	return o, errors.Join(errs...)
}

func parseMajors(list string) (majors []int, err error) {
	known := map[int]bool{}
	for _, major := range postgres.Majors() {
		known[major] = true
	}
	for word := range strings.SplitSeq(list, ",") {
		major, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || !known[major] {
			return nil, fmt.Errorf("%q is none of the majors %v", word, postgres.Majors())
		}
		majors = append(majors, major)
	}
	return majors, nil
}
