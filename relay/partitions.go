package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// tendLimit is how long looking through old partitions may take. Nobody waits
// for it but who writes to them.
const tendLimit = 5 * time.Minute

// tend has partitions of the outbox made ahead and dropped behind, by a function
// of their owner; parted is false if the table has none. No guard: to make
// partitions is right whoever does it, and what may be dropped the function finds
// out from the progress rows of the server on which it runs.
func (j *janitor) tend(ctx context.Context, db *database) (parted bool, err error) {
	r := j.relay
	if r.tableSQL() != quote(r.cfg.Schema, "events") {
		return false, nil
	}
	short, cancel := unhurried(ctx)
	defer cancel()
	err = db.QueryRow(short, `SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)`, r.tableSQL()).Scan(&parted)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !parted {
		return false, nil
	}
	if err != nil {
		return false, r.statementError("look for partitions", err)
	}
	var keep *float64 // seconds
	if r.cfg.Retention > 0 {
		keep = new(r.cfg.Retention.Seconds())
	}
	var made, dropped int
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL statement_timeout = %d`, tendLimit.Milliseconds())); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT made, dropped FROM `+quote(r.cfg.Schema, "tend_partitions")+`(make_interval(secs => $1))`, keep).Scan(&made, &dropped)
	})
	if err != nil {
		return true, r.statementError("tend partitions", err)
	}
	if made+dropped > 0 {
		r.log.Info("partitions", "made", made, "dropped", dropped)
	}
	r.metrics.partitions.WithLabelValues("made").Add(float64(made))
	r.metrics.partitions.WithLabelValues("dropped").Add(float64(dropped))
	return true, nil
}
