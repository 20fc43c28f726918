package inbox

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"
)

// place is what inbox_newer() wants to know of a record.
type place struct {
	ID          string `json:"id"`
	Source      string `json:"source,omitempty"`
	Position    string `json:"position,omitempty"`
	CommittedAt string `json:"committed_at,omitempty"`
	Ordered     bool   `json:"ordered"`
	Dead        bool   `json:"dead,omitempty"`
}

// form is that of the header outrider-position.
var form = regexp.MustCompile(`^[0-9A-F]{16}\.[0-9A-F]{16}$`)

// place reads the headers. What is missing beside the id leaves the decision to
// ids; what is there and cannot be read is an error, before the round trip.
func (r Record) place() (p place, err error) {
	if p.ID, err = r.id(); err != nil {
		return p, err
	}
	p.Source, _ = r.header(headerSource)
	var there bool
	if p.Position, there = r.header(headerPosition); there && !form.MatchString(p.Position) {
		return p, &HeaderError{Record: r.String(), Header: headerPosition, Value: p.Position}
	}
	if p.CommittedAt, there = r.header(headerCommittedAt); there {
		if _, err := time.Parse(time.RFC3339Nano, p.CommittedAt); err != nil {
			return p, &HeaderError{Record: r.String(), Header: headerCommittedAt, Value: p.CommittedAt}
		}
	}
	p.Ordered, p.Dead = r.Key != nil, r.dead()
	return p, nil
}

// dead reports whether r is a dead letter.
func (r Record) dead() bool {
	_, dead := r.header(headerDeadTopic)
	return dead
}

// partitions groups records, as indices, in an order that is the same for
// everybody: rows that are locked in one order do not deadlock. Dead letters want
// to be alone, and come first: who shares a lock and then wants it alone waits
// for others that may want the same.
func partitions(records []Record) [][]int {
	type part struct {
		topic string
		n     int32
	}
	at, dead := map[part][]int{}, map[part]bool{}
	var all []part
	for i, r := range records {
		p := part{r.Topic, r.Partition}
		if at[p] == nil {
			all = append(all, p)
		}
		at[p] = append(at[p], i)
		dead[p] = dead[p] || r.dead()
	}
	sort.Slice(all, func(i, j int) bool {
		if dead[all[i]] != dead[all[j]] {
			return dead[all[i]]
		}
		return all[i].topic < all[j].topic || all[i].topic == all[j].topic && all[i].n < all[j].n
	})
	groups := make([][]int, len(all))
	for i, p := range all {
		groups[i] = at[p]
	}
	return groups
}

// schema is quoted: it stands in SQL.
func (c Consumer) schema() string {
	if c.Schema == "" {
		return `"outbox"`
	}
	return `"` + strings.ReplaceAll(c.Schema, `"`, `""`) + `"`
}

// check refuses what begins transactions and is none: *sql.DB, *sql.Conn,
// *pgx.Conn, *pgxpool.Pool, and what wraps them. A connection on which BEGIN was
// sent by hand looks the same, and is refused too.
func check(tx any) error {
	v := reflect.ValueOf(tx)
	if !v.IsValid() {
		return fmt.Errorf("%w: nil was given", ErrNoTransaction)
	}
	// pgx's methods return types that cannot be named here.
	if !v.MethodByName("Commit").IsValid() && (v.MethodByName("Begin").IsValid() || v.MethodByName("BeginTx").IsValid()) {
		return fmt.Errorf("%w: give the transaction, not %T", ErrNoTransaction, tx)
	}
	return nil
}

// SQLSTATEs of PostgreSQL, appendix A.
const (
	stateUndefinedFunction = "42883"
	stateUndefinedTable    = "42P01"
	stateNoSchema          = "3F000"
)

// explain marks errors that say that there is no inbox. Both pgx and lib/pq have
// errors that tell their SQLSTATE.
func explain(err error) error {
	var server interface{ SQLState() string }
	if errors.As(err, &server) {
		switch server.SQLState() {
		case stateUndefinedFunction, stateUndefinedTable, stateNoSchema:
			return fmt.Errorf("%w: %w", ErrNoInbox, err)
		}
	}
	return err
}
