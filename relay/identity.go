package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// here is the server that a session talks to. Timelines are a tree: a promotion
// begins a new one, and history tells which came before and where each ended.
type here struct {
	systemID string
	timeline int32
	history  string // content of the timeline's history file; "" for the first
}

// fork is a line of a history file.
type fork struct {
	timeline int32
	at       LSN // where the next timeline leaves it
}

// parseHistory reads "timeline<tab>LSN<tab>reason" lines; # begins a comment.
func parseHistory(text string) []fork {
	var forks []fork
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		timeline, err := strconv.ParseInt(f[0], 10, 32)
		at, lsnErr := parseLSN(f[1])
		if err == nil && lsnErr == nil {
			forks = append(forks, fork{int32(timeline), at})
		}
	}
	return forks
}

// descends reports whether the server's WAL goes on from that of then. It may
// also be the same timeline.
func (h here) descends(then here) bool {
	now, old := parseHistory(h.history), parseHistory(then.history)
	if h.timeline < then.timeline || len(now) < len(old) {
		return false
	}
	for i := range old {
		if now[i] != old[i] {
			return false
		}
	}
	if h.timeline == then.timeline {
		return len(now) == len(old)
	}
	return len(now) > len(old) && now[len(old)].timeline == then.timeline
}

// leftAt is where the server's history left a timeline that it descends from.
func (h here) leftAt(timeline int32) (LSN, bool) {
	for _, f := range parseHistory(h.history) {
		if f.timeline == timeline {
			return f.at, true
		}
	}
	return 0, false
}

// judgeServer says whether the database is one that may be streamed from, in
// view of what the row and this process know.
func (r *Relay) judgeServer(c *candidacy) error {
	then := here{c.row.systemID, c.row.timeline, c.row.history}
	former := r.former
	if former.systemID != c.here.systemID {
		former = then
	}
	if c.row.epoch > 0 && !c.here.descends(then) || former.timeline > 0 && !c.here.descends(former) {
		return &waitError{"timeline", &Halt{
			Reason: "timeline",
			Err: fmt.Errorf("the server is on timeline %d, which does not go on from timeline %d that was streamed from: it looks like a primary that was replaced",
				c.here.timeline, max(then.timeline, former.timeline)),
			Hints: []Hint{{Say: "let OUTRIDER_DATABASE_URL lead to the primary; if this server is the right one, restart the relay"}},
		}}
	}
	if r.former.systemID == c.here.systemID && r.former.timeline == c.here.timeline &&
		(c.row.epoch < r.history.epoch || c.row.epoch == r.history.epoch && c.row.writeSeq < r.writeSeq.Load()) {
		return halt("database_rewound", fmt.Errorf("the database is older than what was published from it: its progress row is at epoch %d, write %d, and was at epoch %d, write %d; it was set back, or is a copy",
			c.row.epoch, c.row.writeSeq, r.history.epoch, r.writeSeq.Load()),
			Hint{Say: "if the address leads to a copy, correct OUTRIDER_DATABASE_URL"},
			// It will give the same positions to other rows, and they compare under one source.
			Hint{
				Say: "if the database was set back on purpose, let positions count anew and restart the relay; what was published and is not in the database stays on Kafka",
				SQL: fmt.Sprintf("UPDATE %s.relays SET generation = greatest(generation, %d) + 1 WHERE slot = %s;", quote(r.cfg.Schema), r.history.generation, literal(r.cfg.Slot)),
			})
	}
	return nil
}

// judgeRowless: the database has no row, and this process has led on it. It was
// set back to before the first start, or the row was removed.
func (r *Relay) judgeRowless(c *candidacy) error {
	if r.former.systemID != c.here.systemID || r.former.timeline != c.here.timeline || r.history.epoch == 0 {
		return nil
	}
	return halt("database_rewound", fmt.Errorf("the progress row is gone, and was at epoch %d: the database was set back to before the relay's first start, is a copy, or the row was removed", r.history.epoch),
		Hint{Say: "if the address leads to a copy, correct OUTRIDER_DATABASE_URL"},
		Hint{Say: "if it was on purpose, restart the relay: it starts as for the first time, and publishes every row of the table again"})
}

// foreignXIDs reports whether the row speaks of transactions that this server
// has not had yet. Ids only grow, and pg_upgrade keeps them: data and row come
// from another server, even if it has the same identifier.
func (c *candidacy) foreignXIDs() bool {
	for _, text := range []string{c.row.published, c.row.cutoff, c.row.base} {
		if text == "" {
			continue
		}
		if s, err := parseSnapshot(text); err == nil && s.xmax > c.server.nextXID {
			return true
		}
	}
	return false
}

// judgeIdentity handles a row that was written on another system. Its
// transaction ids, and those in the rows, mean nothing here unless pg_upgrade
// has carried them over; only the operator knows.
func (r *Relay) judgeIdentity(c *candidacy) (plan, error) {
	token := r.token("identity", c.row, c.here.systemID)
	p := plan{make: true, reason: "other_system"}
	given, choice, _ := strings.Cut(r.cfg.AcceptIdentity, ":")
	if given == token {
		switch choice {
		case "republish":
			return p, nil
		case "trust-xids":
			if c.foreignXIDs() {
				return p, halt("xids_not_kept", errors.New("the progress row speaks of transactions that this server has not had yet: it was not made by pg_upgrade"),
					Hint{Say: "publish every row of the table again, with the same ids", Env: "OUTRIDER_ACCEPT_IDENTITY=" + token + ":republish"})
			}
			p.cutoff = c.row.published
			if c.row.phase != phaseStreaming {
				p.cutoff = c.row.cutoff
			}
			return p, nil
		case "none":
			p.nothing = true
			return p, nil
		}
	}
	env := "OUTRIDER_ACCEPT_IDENTITY=" + token + ":"
	return p, halt("other_system", fmt.Errorf("the progress row was written on system %s, this is %s: the database was restored, moved or upgraded", c.row.systemID, c.here.systemID),
		Hint{Say: "after a restore or a move: publish every row of the table again, with the same ids", Env: env + "republish"},
		Hint{Say: "after pg_upgrade, which keeps transaction ids: publish what was not published", Env: env + "trust-xids"},
		Hint{Say: "if everything in the table is published: go on with what is written from now on", Env: env + "none"})
}

// token names one decision about one state, so that an answer left in a
// configuration does not answer a later question.
func (r *Relay) token(question string, row *progressRow, more string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d\x00%s\x00%s", question, r.cfg.Slot, row.epoch, row.generation, row.confirmed, more))
	return hex.EncodeToString(sum[:4])
}

var nameInList = regexp.MustCompile(`"(?:[^"]|"")*"|[^\s,()]+`)

// syncNames refuses a server whose synchronous_standby_names matches us. A
// logical walsender counts as a standby there: commits would wait for the relay,
// and while Kafka is away nobody could commit.
func (r *Relay) syncNames(ctx context.Context, db *database, setting string) error {
	if r.cfg.AllowSync || setting == "" {
		return nil
	}
	own := "outrider/" + r.cfg.Instance
	for _, name := range nameInList.FindAllString(setting, -1) {
		if unquoted := strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`); unquoted != "*" && !strings.EqualFold(unquoted, own) {
			continue
		}
		standbys := "<names of the standbys>"
		err := db.QueryRow(ctx, `SELECT coalesce(string_agg(DISTINCT quote_ident(application_name), ', '), '') FROM pg_stat_replication
 WHERE application_name NOT LIKE 'outrider/%' AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' AND active_pid IS NOT NULL)`).Scan(&standbys)
		if err != nil {
			return r.statementError("look for standbys", err)
		}
		return halt("synchronous_standby", fmt.Errorf("synchronous_standby_names = %q matches the relay: commits would wait until Kafka has them", setting),
			Hint{Say: "name the real standbys", SQL: "ALTER SYSTEM SET synchronous_standby_names = " + literal(standbys) + ";\nSELECT pg_reload_conf();"},
			Hint{Say: "or let commits wait for the relay", Env: "OUTRIDER_ALLOW_SYNC=true"})
	}
	return nil
}

// errOtherServer: a multi-host address led the two connections apart.
var errOtherServer = errors.New("the replication connection leads to another server than the ordinary one")
