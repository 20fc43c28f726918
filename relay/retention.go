package relay

import (
	"context"
	"fmt"
	"time"
)

// Retention deletes rows that are downstream for every relay, and old enough.
// It has a goroutine and a short-lived connection of its own, so that it never
// holds up the progress row.

const (
	retentionInterval = time.Minute
	retentionBatch    = 1000
	maxMisses         = 5 // batches in a row that must stay, after which the rest is taken for younger still
)

// janitor deletes in batches, in order of insertion.
type janitor struct {
	relay    *Relay
	lead     leadership
	systemID string    // of the server
	since    time.Time // when stale was seen first
	stale    string    // slots of rows that keep everything
}

// run works until ctx ends, in phase streaming only.
func (j *janitor) run(ctx context.Context) {
	interval := retentionInterval
	if keep := j.relay.cfg.Retention; keep > 0 { // a short one is looked after more often
		interval = max(time.Second, min(retentionInterval, keep/4))
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := j.round(ctx); err == nil {
			j.relay.metrics.cleanings.Inc()
		} else if ctx.Err() == nil {
			j.relay.log.Warn("retention: round given up", "error", firstLine(err.Error()))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// round deletes batch after batch until several find only rows that have to stay. Rows
// are looked at in order of seq, which age follows but for transactions that
// took long; what such a one leaves behind, a later round takes.
func (j *janitor) round(ctx context.Context) error {
	db, err := j.relay.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	table := j.relay.tableSQL()
	if parted, err := j.tend(ctx, db); err != nil {
		return err
	} else if parted {
		table = quote(j.relay.cfg.Schema, "events_default") // the other partitions go as a whole
	}
	if j.relay.cfg.Retention == 0 {
		return nil
	}
	if err := j.blocked(ctx, db); err != nil {
		return err
	}
	misses := 0
	for after := int64(-1); ctx.Err() == nil; {
		began := time.Now()
		deleted, last, err := j.batch(ctx, db, table, after)
		if err != nil || last == nil {
			return err
		}
		j.relay.metrics.deleted.Add(float64(deleted))
		if deleted > 0 {
			misses = 0
		} else if misses++; misses == maxMisses {
			return nil
		}
		after = *last
		select { // as long again as the batch took: writers are there too
		case <-time.After(time.Since(began)):
		case <-ctx.Done():
		}
	}
	return nil
}

// batch looks at the next rows by seq and deletes those that every progress row
// calls published. A relay in another phase, without a mark, or whose mark was
// taken on another server (its snapshot speaks of other transactions) holds all.
// The guard proves that we still lead, on the server that feeds us.
func (j *janitor) batch(ctx context.Context, db *database, table string, after int64) (deleted int, last *int64, err error) {
	r := j.relay
	ctx, cancel := unhurried(ctx)
	defer cancel()
	err = db.QueryRow(ctx, `WITH held AS (SELECT bool_or(phase <> 'streaming' OR published IS NULL OR system_id <> $6) AS held FROM `+db.relays()+`),
 seen AS (SELECT seq, tx, created_at FROM `+table+` WHERE seq > $4 ORDER BY seq LIMIT `+fmt.Sprint(retentionBatch)+`),
 gone AS (DELETE FROM `+table+` e WHERE e.seq = ANY (ARRAY(SELECT s.seq FROM seen s
  WHERE s.created_at < clock_timestamp() - make_interval(secs => $5)
  AND NOT EXISTS (SELECT FROM `+db.relays()+` p WHERE NOT pg_visible_in_snapshot(s.tx, p.published))))
  AND NOT (SELECT held FROM held) AND EXISTS (SELECT FROM `+db.relays()+` WHERE `+guard+`) RETURNING 1)
SELECT (SELECT count(*) FROM gone), (SELECT max(seq) FROM seen)`,
		r.cfg.Slot, j.lead.epoch, j.lead.pid, after, r.cfg.Retention.Seconds(), j.systemID).Scan(&deleted, &last)
	if err != nil {
		return 0, nil, r.statementError("delete published rows", err)
	}
	return deleted, last, nil
}

// staleAfter is when a progress row that nobody writes counts as left behind.
const staleAfter = time.Hour

// blocked tells of progress rows that keep rows in the table although nobody
// moves them: their slot is gone, unused for long, or was on another server. A
// relay that is just making its slot is given time.
func (j *janitor) blocked(ctx context.Context, db *database) error {
	r := j.relay
	ctx, cancel := unhurried(ctx)
	defer cancel()
	var stale string
	err := db.QueryRow(ctx, `SELECT coalesce(string_agg(slot, ', ' ORDER BY slot), '') FROM (SELECT p.slot, p.phase, p.system_id, s.active,
 p.updated_at < clock_timestamp() - make_interval(secs => $2) AS old FROM `+db.relays()+` p
 LEFT JOIN pg_replication_slots s ON s.slot_name = p.slot AND s.database = current_database() WHERE p.slot <> $1) x
 WHERE system_id <> $3 OR active IS NULL AND phase <> 'creating' OR old AND active IS NOT TRUE`,
		r.cfg.Slot, staleAfter.Seconds(), j.systemID).Scan(&stale)
	if err != nil {
		return r.statementError("look for progress rows that were left behind", err)
	}
	if (stale == "") != (j.stale == "") {
		j.since = time.Now()
	}
	j.stale = stale
	c := Condition{Reason: "retention_blocked"}
	if stale != "" {
		c.Since = j.since
		c.Hint = "nobody moves the progress of these slots, and all rows are kept for them: " + stale + ". If such a relay will not come back: outrider relays remove <slot>"
	}
	r.report(c)
	return nil
}
