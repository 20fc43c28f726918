package format

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Options say what is printed and how.
type Options struct {
	Format    string
	Direction Direction
	Names     migrations.Names
	Roles     []migrations.Role      // existing roles to be granted; without them there are no migrations for roles
	Owner     string                 // existing role as which everything is done; "": the role of the tool
	Only      []migrations.Privilege // only migrations of these; none: all
	From, To  int                    // numbers of migrations, both included; 0: from the first, to the last
	Base      uint64                 // is added to the numbers, for tools that order all migrations of a project by one number
	After     string                 // migration of the tool that the first one follows; Alembic and Django
	App       string                 // label of the application; Django
}

// maxBase leaves room for a timestamp of 14 digits; goose and golang-migrate
// keep numbers in 63 bits.
const maxBase = 99_999_999_999_999

// Change is what one migration of a tool does.
type Change struct {
	Number   int    // of our migration; of the last one in a merged change
	Version  uint64 // base and number
	Name     string // schema and name of our migration; a-z, 0-9 and _
	Up, Down string // statements with the note in schema_version, to be guarded
	schema   string
	owner    string
	after    string  // what it follows if previous is nil
	previous *Change // of ours
	first    int     // number of the first one in a merged change
}

// changes are the selected migrations in order. There is at least one.
func (o Options) changes() ([]Change, error) {
	names, err := o.Names.Normalize()
	if err != nil {
		return nil, err
	}
	if o.Names = names; o.Base > maxBase {
		return nil, fmt.Errorf("base %d: at most 14 digits", o.Base)
	}
	if o.Owner != "" && (len(o.Owner) > 63 || strings.ContainsRune(o.Owner, 0)) {
		return nil, fmt.Errorf("owner %q: a name has 1 to 63 bytes and no NUL", o.Owner)
	}
	last := o.To
	if last == 0 {
		last = math.MaxInt
	}
	if o.From < 0 || last < o.From {
		return nil, fmt.Errorf("from %d to %d: the first number is the lower one, in both directions", o.From, o.To)
	}
	var list []Change
	for _, m := range migrations.All() {
		if m.Version < o.From || m.Version > last || !m.Wanted(o.Only) {
			continue
		}
		c, ok, err := o.change(m)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("nothing to print: no migration has that number and privilege, or no role was named")
	}
	list[0].after = o.After
	for i := range list[1:] {
		list[i+1].previous = &list[i]
	}
	return list, nil
}

// change renders m; ok is false for a migration of roles none of which is named.
func (o Options) change(m migrations.Migration) (c Change, ok bool, err error) {
	c = Change{
		Number: m.Version, first: m.Version, Version: o.Base + uint64(m.Version),
		Name: o.Names.Schema + "_" + m.Name, schema: o.Names.Schema, owner: o.Owner,
	}
	if m.ForRole() {
		return o.roleChange(c, m)
	}
	up, err := m.Render(o.Names)
	if err != nil {
		return c, false, err
	}
	record, err := m.Record(o.Names)
	if err != nil {
		return c, false, err
	}
	c.Up = heading(m) + up + "\n" + record + "\n"
	down, err := m.RenderDown(o.Names)
	if err != nil && o.Direction == Up {
		return c, true, nil // nobody asked for it
	}
	if err != nil {
		return c, false, err
	}
	forget, err := m.Forget(o.Names)
	c.Down = heading(m) + forget + "\n" + down
	return c, true, err
}

func (o Options) roleChange(c Change, m migrations.Migration) (_ Change, ok bool, err error) {
	for _, r := range o.Roles {
		if r.Privilege != m.Privilege {
			continue
		}
		up, err := m.RenderRole(o.Names, r)
		if err != nil {
			return c, false, err
		}
		c.Up += heading(m) + up
		down, err := m.RenderDownRole(o.Names, r)
		if err != nil && o.Direction != Up {
			return c, false, err
		}
		c.Down = heading(m) + down + c.Down
		ok = true
	}
	return c, ok, nil
}

func heading(m migrations.Migration) string { return "\n-- " + m.String() + "\n" }

// merge makes one change of several: down is in reverse order.
func merge(list []Change, o Options) Change {
	whole := list[len(list)-1]
	whole.Up, whole.Down = "", ""
	for _, c := range list {
		whole.Up += c.Up
		whole.Down = c.Down + whole.Down
	}
	whole.Name = whole.schema
	whole.first, whole.previous, whole.after = list[0].first, nil, o.After
	return whole
}

// follows refuses a file in the middle of a chain that does not say what it follows.
func (c Change) follows(p printer) error {
	if _, ok := p.(chained); ok && c.first > 1 && c.previous == nil && c.after == "" {
		return fmt.Errorf("migration %03d follows another one of the tool: name it with --after", c.first)
	}
	return nil
}
