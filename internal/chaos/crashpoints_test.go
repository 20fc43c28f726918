package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// crashpoints lists every place in the relay's source at which it can be told to die.
func crashpoints(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../relay/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of the relay: %v", err)
	}
	var all []string
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`crashpoint\("([^"]+)"\)`).FindAllSubmatch(src, -1) {
			all = append(all, string(m[1]))
		}
	}
	return all
}

// mortal is a relay built to die at a place.
func mortal(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "outrider")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-race", "-tags", "crashpoints", "-o", bin, chaos.Module).CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// The relay is killed between any two steps of a first start with rows in the
// table, and of a recovery; a relay that starts afterwards loses nothing, and
// the order of the key holds.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	bin := mortal(t)
	for _, point := range crashpoints(t) {
		for _, recovery := range []bool{false, true} {
			if point == "after the old slot was dropped" && !recovery {
				continue // a first start has none
			}
			t.Run(fmt.Sprintf("%s, recovery %t", point, recovery), func(t *testing.T) {
				t.Parallel()
				crashAt(t, bin, point, recovery)
			})
		}
	}
}

func crashAt(t *testing.T, bin, point string, recovery bool) {
	major := map[bool]int{false: 18, true: 14}[recovery]
	server := postgres.Start(t, major)
	migrate(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), step)
	defer cancel()
	db, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	out := filepath.Join(t.TempDir(), "out")
	start := func(env ...string) *chaos.Process {
		r := chaos.Relay{Binary: bin, Log: out, Env: append(env, "OUTRIDER_DATABASE_URL="+server.URL(), "OUTRIDER_NAME=chaos",
			"OUTRIDER_SINK=stdout", "OUTRIDER_WAL_SENDER_TIMEOUT=2s")}
		p, err := r.Start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	n := 0
	var mu sync.Mutex
	insert := func(db *pgx.Conn, rows int) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := db.Exec(ctx, `INSERT INTO outbox.events (topic, key, payload) SELECT 't', 'k', to_json('n' || i) FROM generate_series($1::int, $2::int) i`, n+1, n+rows); err != nil {
			t.Error(err)
		}
		n += rows
	}
	phase := func(want string) {
		until(ctx, t, "phase "+want, func() bool {
			var is string
			err := db.QueryRow(ctx, `SELECT coalesce(max(phase), '') FROM outbox.relays`).Scan(&is)
			return err == nil && is == want
		})
	}
	insert(db, 1500)
	if recovery {
		p := start()
		phase("streaming")
		insert(db, 50)
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		insert(db, 1500)
		if _, err := db.Exec(ctx, `SELECT pg_replication_slot_advance('outrider_chaos', pg_current_wal_lsn())`); err != nil {
			t.Fatal(err)
		}
	}

	dying := start("CRASHPOINT=" + point)
	other, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	until(ctx, t, "the relay dies at "+point, func() bool {
		insert(other, 1) // traffic goes on
		return !dying.Running()
	})
	if code, _ := dying.Wait(ctx); code != -1 {
		t.Fatalf("the relay ended with %d, not by a signal", code)
	}
	start()
	insert(db, 10)
	var got []string
	until(ctx, t, "everything has arrived", func() bool {
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got = got[:0]
		seen := map[string]bool{}
		for _, m := range regexp.MustCompile(`"(n[0-9]+)`).FindAllStringSubmatch(string(text), -1) {
			if !seen[m[1]] {
				seen[m[1]] = true
				got = append(got, m[1])
			}
		}
		return len(got) >= n
	})
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint("n", i+1))
	}
	if !slices.Equal(got, want) {
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("place %d: %s, want %s", i, got[i], want[i])
			}
		}
	}
	phase("streaming")
	if strings.Contains(readAll(t, out), "DATA RACE") {
		t.Error("the relay has a data race")
	}
}

func readAll(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
