package relay_test

import (
	"fmt"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Installations from before a migration are served: without dead letters, and
// without the view, schedule and partitions. A lost slot is recovered there, too.
func TestOlderInstallations(t *testing.T) {
	for _, newest := range []int{7, 9} {
		t.Run(fmt.Sprint(newest), func(t *testing.T) {
			t.Parallel()
			pg := postgres.Start(t, 16)
			w := &world{t: t, pg: pg, db: postgres.Connect(t, pg.URL())}
			for _, m := range migrations.All() {
				if m.Version > newest || m.ForRole() {
					continue
				}
				text, err := m.Render(migrations.Names{})
				if err != nil {
					t.Fatal(err)
				}
				w.exec(text)
			}
			cfg := w.config()
			w.write(1)
			r := w.start(cfg, &memory{})
			r.awaitPhase(w, "streaming")
			w.write(2, 3)
			r.awaitValues("1", "2", "3")
			if c := r.Status().Conditions; len(c) > 0 {
				t.Errorf("conditions %+v", c)
			}
			r.stop()
			w.exec(`SELECT pg_drop_replication_slot('outrider_test')`)
			w.write(4)
			r = w.start(cfg, &memory{})
			await(t, func() error {
				if got := r.sink.values(); len(got) == 0 || got[len(got)-1] != "4" {
					return fmt.Errorf("arrived: %v (%+v)", got, r.Status())
				}
				return nil
			})
			// What was missing is added under the relay.
			w.migrate(w.db)
			w.exec(`SELECT outbox.schedule(now(), 't', 'k', '5')`)
			r.stop()
			r = w.start(cfg, &memory{})
			r.awaitValues("5")
		})
	}
}
