package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is where a show keeps its files. It is short, for the sake of the
// server's socket, and can be passed by the user that the server runs as.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// output is what a show prints; await waits for a text in it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) await(ctx context.Context, text string) error {
	for {
		o.mu.Lock()
		there, changed := strings.Contains(o.text.String(), text), o.changed
		o.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q: %w", text, context.Cause(ctx))
		}
	}
}

func needServer(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, postgres.ErrNoBuild) || errors.Is(err, postgres.ErrShared) {
		harness.Missing(t, err)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNothingIsMissingAfterKillAndOutage(t *testing.T) {
	out := newOutput()
	o := options{rate: 400, calm: 500 * time.Millisecond, away: 700 * time.Millisecond, limit: 90 * time.Second, dir: folder(t)}
	err := perform(t.Context(), t.Context(), o, newScreen(out, false, false))
	needServer(t, err)
	t.Log("\n" + out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"SIGKILL to Outrider", "the broker is stopped"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the output does not say %q", text)
		}
	}
	if n := strings.Count(out.String(), "all made good"); n != 2 {
		t.Errorf("%d outages were made good, want 2", n)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	m := regexp.MustCompile(`^committed (\d+), delivered (\d+), lost 0, out of order 0$`).FindStringSubmatch(lines[len(lines)-1])
	if len(m) != 3 || m[1] != m[2] || len(m[1]) < 3 {
		t.Errorf("the last line is %q", lines[len(lines)-1])
	}
	wantEmpty(t, o.dir)
}

func TestInterruptedShowLeavesNothing(t *testing.T) {
	for _, moment := range []string{"OrderPlaced", "SIGKILL", "the broker is stopped"} {
		t.Run(strings.ReplaceAll(moment, " ", "-"), func(t *testing.T) {
			out := newOutput()
			ctx, interrupt := context.WithCancelCause(t.Context())
			watched := make(chan error, 1)
			go func() {
				watched <- out.await(ctx, moment)
				interrupt(errInterrupted)
			}()
			o := options{rate: 400, calm: 200 * time.Millisecond, away: 2 * time.Second, limit: 90 * time.Second, dir: folder(t)}
			err := perform(ctx, ctx, o, newScreen(out, false, false))
			interrupt(err) // ends the watching if the show did not come that far
			needServer(t, err)
			if !errors.Is(err, errInterrupted) {
				t.Errorf("got %v, want an interruption", err)
			}
			if err := <-watched; err != nil {
				t.Error(err)
			}
			wantEmpty(t, o.dir)
		})
	}
}

// The compiler has temporary files of its own, which it does not remove when it is interrupted.
func TestInterruptedBuildLeavesNothing(t *testing.T) {
	t.Setenv(download.CacheDir, download.Cache(os.Geteuid() == 0)) // where it is without TMPDIR
	t.Setenv("GOCACHE", t.TempDir())                               // so that there is something to compile
	o := options{rate: 1, dir: folder(t)}
	t.Setenv("TMPDIR", o.dir)
	ctx, interrupt := context.WithCancelCause(t.Context())
	watched := make(chan error, 1)
	go func() {
		watched <- poll(ctx, func() (bool, error) {
			compiling, err := filepath.Glob(filepath.Join(o.dir, "*", "go-build*", "b*"))
			return len(compiling) > 0, err
		})
		interrupt(errInterrupted)
	}()
	err := perform(ctx, ctx, o, newScreen(newOutput(), false, false))
	interrupt(err)
	needServer(t, err)
	if !errors.Is(err, errInterrupted) {
		t.Errorf("got %v, want an interruption", err)
	}
	if err := <-watched; err != nil {
		t.Error(err)
	}
	wantEmpty(t, o.dir)
}

func TestVisitorKillsOutriderAndLeaves(t *testing.T) {
	out := newOutput()
	visit, leave := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		defer leave()
		watched <- func() error {
			if err := out.await(visit, "OrderPlaced"); err != nil {
				return err
			}
			pid := regexp.MustCompile(`kill -9 (\d+)`).FindStringSubmatch(out.String())
			if len(pid) != 2 {
				return errors.New("the output does not say how to kill Outrider")
			}
			n, _ := strconv.Atoi(pid[1])
			return errors.Join(syscall.Kill(n, syscall.SIGKILL), out.await(visit, "all made good"))
		}()
	}()
	o := options{hold: true, rate: 20, away: 100 * time.Millisecond, dir: folder(t)}
	err := perform(t.Context(), visit, o, newScreen(out, false, true))
	leave()
	needServer(t, err)
	if err := errors.Join(err, <-watched); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, text := range []string{"curl http://", "kcat -b ", "psql ", "Outrider killed", "lost 0, out of order 0"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the output does not say %q:\n%s", text, out.String())
		}
	}
	wantEmpty(t, o.dir)
}

func TestLatenciesTellOutagesApart(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	s := newTally()
	s.trips = []trip{
		{at(1), at(2)},   // before
		{at(9), at(21)},  // sent before, held up
		{at(15), at(21)}, // sent meanwhile
		{at(19), at(45)}, // held up by both: the first counts
		{at(22), at(24)}, // between
		{at(41), at(45)},
	}
	s.trips = append(s.trips, trip{at(60), at(63)}) // the first kind once more
	got := s.latencies([]outage{{"first", at(10), at(21)}, {"second", at(40), at(45)}, {"first", at(61), at(62)}})
	want := []latency{
		{"undisturbed", 2, time.Second, 2 * time.Second, 2 * time.Second},
		{"first", 4, 6 * time.Second, 26 * time.Second, 26 * time.Second},
		{"second", 1, 4 * time.Second, 4 * time.Second, 4 * time.Second},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestVerdictCountsWhatIsWrong(t *testing.T) {
	row := func(n int64) chaos.Row {
		return chaos.Row{ID: chaos.ID{byte(n)}, Content: chaos.Content{Topic: topic, Key: "alice", Keyed: true, N: n}}
	}
	record := func(r chaos.Row, offset int64) chaos.Record {
		return chaos.Record{Content: r.Content, ID: r.ID, Offset: offset, Source: "1.1.a.1", Position: chaos.Position{LSN: uint64(r.N)}}
	}
	report := chaos.Verify(chaos.History{
		Committed: []chaos.Row{row(1), row(2), row(3)}, KeyContention: 1,
		Records: []chaos.Record{record(row(2), 0), record(row(1), 1)},
	})
	if got, want := verdict(report), "committed 3, delivered 2, lost 1, out of order 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArrivalsAreShownNowAndThen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, false, false)
	r := &chaos.Record{Content: chaos.Content{Topic: topic, Key: "alice", Type: eventType, N: 7}, Partition: 1, Offset: 42}
	for range 50 {
		s.arrival(r, 1500*time.Microsecond, true)
	}
	s.shown = time.Now().Add(-time.Minute)
	s.arrival(r, 0, false)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || strings.Contains(out.String(), "\x1b") {
		t.Fatalf("%d lines, want 2 without colours:\n%s", len(lines), out.String())
	}
	for i, want := range []string{`orders/1@42 .*alice +#7 +1\.5 ms$`, `orders/1@42 .*again  and 49 more$`} {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %q, want %q", lines[i], want)
		}
	}
}
