package chaos_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
)

// fromTable plays the relay that sends the table in the order of insertion,
// which is the commit order of writers that serialize on a business row.
func fromTable(t *testing.T, url string) (records []chaos.Record) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), `SELECT id, topic, key, coalesce(type, ''), coalesce(payload_bytes, convert_to(payload::text, 'UTF8')),
		(headers->>'n')::bigint, seq,
		ARRAY(SELECT key FROM jsonb_each(headers) ORDER BY key), ARRAY(SELECT value FROM jsonb_each_text(headers) ORDER BY key)
		FROM outbox.events ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id [16]byte
		var key *string
		var value []byte
		var names []string
		var values []*string
		rec := chaos.Record{Source: "1.1.test.1"}
		if err := rows.Scan(&id, &rec.Topic, &key, &rec.Type, &value, &rec.N, &rec.Offset, &names, &values); err != nil {
			t.Fatal(err)
		}
		rec.ID, rec.Position.Ordinal = id, uint64(rec.Offset)
		if rec.Keyed = key != nil; rec.Keyed {
			rec.Key = *key
		}
		if rec.Tombstone = value == nil; !rec.Tombstone {
			rec.Value = chaos.Hash(value)
		}
		for i, name := range names {
			switch {
			case name == chaos.HeaderCounter:
			case values[i] == nil:
				rec.Headers += chaos.HashHeader(name, nil)
			default:
				rec.Headers += chaos.HashHeader(name, []byte(*values[i]))
			}
		}
		records = append(records, rec)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// judge compares the journal with the table, by the verifier that judges relays.
func judge(t *testing.T, w *chaos.Workload, url string) chaos.Outcome {
	t.Helper()
	if err := w.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	table, err := w.TableIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := w.Outcome()
	r := chaos.Verify(chaos.History{
		Committed: out.Committed, RolledBack: out.RolledBack, KeyContention: out.Meetings,
		Records: fromTable(t, url), Table: table, ExactlyOnce: true,
	})
	t.Logf("%s; %+v", r, out.Evidence)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func newWorkload(t *testing.T, cfg chaos.WorkloadConfig) *chaos.Workload {
	t.Helper()
	w, err := chaos.NewWorkload(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestJournalIsTheTable(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(postgresName(major), func(t *testing.T) {
			s := postgres.Start(t, major, "max_prepared_transactions=20")
			migrate(t, s.URL())
			w := newWorkload(t, chaos.WorkloadConfig{
				DatabaseURL: s.URL(), Topics: []string{"accounts", "audit"}, Rows: 5000, LargeEvery: 500, Prepared: true, Seed: 1,
			})
			if err := w.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			e := judge(t, w, s.URL()).Evidence
			for name, n := range map[string]int{
				"rollbacks": e.Rollbacks, "savepoints": e.Savepoints, "copies": e.Copies, "prepared": e.Prepared,
				"tombstones": e.Tombstones, "binary": e.Binary, "empty": e.Empty, "large": e.Large, "unkeyed": e.Unkeyed, "context": e.ContextHeaders,
			} {
				if n == 0 {
					t.Errorf("the workload had no %s", name)
				}
			}
		})
	}
}

// A crash of the server leaves commits in doubt; the table says what they came to.
func TestJournalSurvivesCrashes(t *testing.T) {
	s := postgres.Start(t, 0, "max_prepared_transactions=20")
	s.Private(t)
	migrate(t, s.URL())
	w := newWorkload(t, chaos.WorkloadConfig{DatabaseURL: s.URL(), Topics: []string{"accounts"}, Writers: 8, Seed: 2, Prepared: true})
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	writing, enough := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(writing) }()
	crashes := 0
	for crashes < 5 || w.InDoubt() == 0 { // a crash hits the middle of a commit by chance only
		if err := w.WaitCommitted(ctx, w.Committed()+300+97*crashes%1000); err != nil {
			t.Fatal(err)
		}
		if err := s.Crash(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		crashes++
	}
	enough()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if e := judge(t, w, s.URL()).Evidence; e.Disconnects < crashes {
		t.Errorf("%d connections lost in %d crashes: they did not bite", e.Disconnects, crashes)
	}
}

// The same seed writes the same; one writer has nobody to interleave with.
func TestWorkloadIsRepeatable(t *testing.T) {
	s := postgres.Start(t, 0)
	var sums []uint64
	for _, database := range []string{"one", "two"} {
		execute(t, s.URL(), "CREATE DATABASE "+database)
		url := s.DatabaseURL(database)
		migrate(t, url)
		w := newWorkload(t, chaos.WorkloadConfig{DatabaseURL: url, Topics: []string{"accounts"}, Writers: 1, Rows: 500, Seed: 3})
		if err := w.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, row := range w.Outcome().Committed {
			sum = sum*31 + row.Value + row.Headers + uint64(row.N)
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[1] {
		t.Error("two runs with one seed wrote different rows")
	}
}
