package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/chaos"
)

func env(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func TestOptions(t *testing.T) {
	o, err := parseOptions(env(map[string]string{"FOR": "2h", "SEED": "5", "CHAOS_POSTGRES": "14, 18", "CHAOS_FAULTS": "^relay", "CHAOS_JSON": ""}))
	if err != nil {
		t.Fatal(err)
	}
	if o.duration != 2*time.Hour || o.seed != 5 || !cmp.Equal(o.majors, []int{14, 18}) || o.faults.MatchString("a relay") || o.timeout != 3*time.Second {
		t.Errorf("got %+v", o)
	}
	a, _ := parseOptions(env(nil))
	if b, _ := parseOptions(env(nil)); a.seed == b.seed {
		t.Error("two runs drew one seed")
	}
	_, err = parseOptions(env(map[string]string{"FOR": "2 hours", "CHAOS_POSTGRES": "13", "CHAOS_FAULTS": "(", "CHAOS_REPEAT": "0"}))
	for _, name := range []string{"FOR", "CHAOS_POSTGRES", "CHAOS_FAULTS", "CHAOS_REPEAT"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("no word of %s in %v", name, err)
		}
	}
}

// Which worker is faster must not decide which seed a repetition has.
func TestSeedsBelongToFaultAndRound(t *testing.T) {
	seeds := func() map[string]uint64 {
		s := &series{o: &options{seed: 3, repeat: 2}, began: time.Now()}
		for _, f := range chaos.Faults()[:3] {
			s.jobs = append(s.jobs, job{f, 15}, job{f, 18})
		}
		all := map[string]uint64{}
		for range 2 * len(s.jobs) {
			j, seed, ok := s.next(t.Context())
			if !ok {
				t.Fatal("the turns are over too early")
			}
			key := j.fault.Name + string(rune('A'+s.given/(len(s.jobs)+1))) + string(rune(j.major))
			if all[key] != 0 {
				t.Errorf("%s has two turns in a round", key)
			}
			all[key] = seed
		}
		if _, _, ok := s.next(t.Context()); ok {
			t.Error("the turns do not end")
		}
		return all
	}
	if diff := cmp.Diff(seeds(), seeds()); diff != "" {
		t.Error(diff)
	}
}

func TestEveryRepetitionIsCounted(t *testing.T) {
	f := chaos.Faults()[0]
	s := &series{o: &options{seed: 1, timeout: time.Second}, jobs: []job{{f, 15}, {f, 18}}, began: time.Now()}
	s.done = []chaos.Repetition{
		{Fault: f.Name, Major: 15, Postgres: "15.1", Flowing: 2 * time.Second, Voids: []string{"x"}, Report: chaos.Report{Committed: 10}},
		{Fault: f.Name, Major: 15, Postgres: "15.1", Flowing: time.Second, Err: errors.New("lost"), Report: chaos.Report{Committed: 5, Lost: chaos.Finding{Count: 1}}},
		{Fault: f.Name, Major: 15, Postgres: "15.1", Err: chaos.ErrVoid, Report: chaos.Report{Committed: 100}},
	}
	got := s.result().Rows
	want := []row{{
		Fault: f.Name, Major: 15, Postgres: "15.1", Repetitions: 3, Void: 1, Failed: 2, Committed: 15, Lost: 1,
		Flowing: []float64{2, 1}, Failures: []failure{{0, "lost"}, {0, "void run"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRunsOfOneCommitAreAddedUp(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(filepath.Dir(docsFile), 0o755); err != nil {
		t.Fatal(err)
	}
	o := &options{json: "runs.json", docs: true, repeat: 1}
	for i, name := range []string{"aaa", "bbb", "bbb", "bbb" + dirty} {
		r := &result{Commit: name, Seconds: 10, Rows: []row{{Fault: "f", Major: 15, Postgres: "15.1", Repetitions: 1, Committed: 100 + i, Flowing: []float64{float64(i)}}}}
		if err := r.save(o); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(docsFile)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"| 100 |", "| 101 |", "| 203 |", "| 103 |"}[i]
		if squeezed := strings.Join(strings.Fields(string(text)), " "); !strings.Contains(squeezed, want) || !strings.HasPrefix(string(text), "# Guarantees") {
			t.Errorf("run %d: no %q in\n%s", i+1, want, text)
		}
	}
	text, _ := os.ReadFile("runs.json")
	if n := strings.Count(string(text), "\n"); n != 4 {
		t.Errorf("%d lines, want one a run", n)
	}
}
