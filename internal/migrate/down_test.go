package migrate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/internal/migrate"
	"github.com/outrider-cdc/outrider/internal/migrate/format"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// rawCatalog is every row of the catalog of this database that could speak of an
// object of a user: nothing may be left in it, whatever it is. What vacuum
// writes into pg_class is left out.
const rawCatalog = `
DO $$
DECLARE
  catalog text;
BEGIN
  CREATE TEMP TABLE IF NOT EXISTS pg_temp.seen (line text);
  DELETE FROM pg_temp.seen;
  FOR catalog IN SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
      AND NOT relisshared AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject') LOOP
    EXECUTE format($q$INSERT INTO pg_temp.seen SELECT %1$L || ' ' || (to_jsonb(t) - ARRAY['relpages', 'reltuples',
      'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid', 'relhasindex', 'relfilenode'])::text FROM pg_catalog.%1$I t$q$, catalog);
  END LOOP;
  INSERT INTO pg_temp.seen SELECT 'pg_shdepend ' || to_jsonb(t)::text FROM pg_shdepend t
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
END
$$`

// catalogRows returns them in order.
func catalogRows(t *testing.T, db database) []string {
	t.Helper()
	must(t, db.Conn, rawCatalog)
	return strings.Split(get[string](t, db.Conn, `SELECT string_agg(line, E'\n' ORDER BY line) FROM pg_temp.seen`), "\n")
}

// described is what is in a database, without the numbers that Postgres gives:
// objects, definitions, grants, comments, and the rows that migrations write.
const described = `
SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
  SELECT DISTINCT i.type || ' ' || i.identity AS line FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) i
    WHERE d.objid >= 16384 AND i.identity NOT LIKE 'pg_t%' AND i.identity NOT LIKE '%pg_temp%' AND i.identity !~ 'RI_ConstraintTrigger'
  UNION SELECT 'acl of ' || i.identity || ': ' || pg_get_userbyid(a.grantee) || ' ' || a.privilege_type
    FROM (SELECT 'pg_class'::regclass AS class, oid, 0 AS sub, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl FROM pg_class
      UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, attacl FROM pg_attribute WHERE attacl IS NOT NULL
      UNION ALL SELECT 'pg_proc'::regclass, oid, 0, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
      UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace) o,
      pg_identify_object(o.class, o.oid, o.sub) i, aclexplode(o.acl) a
    WHERE o.oid >= 16384 AND o.acl IS NOT NULL AND i.identity NOT LIKE 'pg_t%' AND i.identity NOT LIKE '%pg_temp%'
  UNION SELECT 'comment on ' || i.identity || ': ' || description FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE d.objoid >= 16384
  UNION SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE oid >= 16384
  UNION SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) || convalidated FROM pg_constraint WHERE oid >= 16384
  UNION SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indexrelid >= 16384 AND relname NOT LIKE 'pg_t%'
  UNION SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
  UNION SELECT 'view ' || viewname || definition FROM pg_views WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  UNION SELECT 'column ' || c.oid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod) || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '')
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
    WHERE c.oid >= 16384 AND attnum > 0 AND NOT attisdropped AND relpersistence = 'p' AND relname NOT LIKE 'pg_t%'
  UNION SELECT 'options ' || oid::regclass || reloptions::text FROM pg_class WHERE reloptions IS NOT NULL AND oid >= 16384 AND relname NOT LIKE 'pg_t%'
  UNION SELECT 'publication ' || to_jsonb(p)::text FROM pg_publication_tables p
) AS lines`

// describe adds the rows of schema_version and settings.
func describe(t *testing.T, db database) []string {
	t.Helper()
	text := get[string](t, db.Conn, "SELECT coalesce(("+described+"), '')")
	if get[bool](t, db.Conn, "SELECT to_regclass('outbox.schema_version') IS NOT NULL") {
		text += get[string](t, db.Conn, `SELECT coalesce((SELECT string_agg(E'\n' || version || name || checksum, '' ORDER BY version) FROM outbox.schema_version), '')
 || coalesce((SELECT string_agg(E'\n' || name || value, '' ORDER BY name) FROM outbox.settings), '')`)
	}
	return strings.Split(text, "\n")
}

// printed runs what "migrate print" says.
func printed(t *testing.T, db database, o format.Options) error {
	t.Helper()
	o.Format = "sql"
	text, err := format.One(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = db.Exec(t.Context(), text); err != nil {
		must(t, db.Conn, "ROLLBACK")
	}
	return err
}

// oneOfEach makes a role of every kind that a migration grants to.
func oneOfEach(t *testing.T, db database) (roles []migrations.Role) {
	t.Helper()
	for _, m := range migrations.All() {
		if m.ForRole() && !slices.ContainsFunc(roles, func(r migrations.Role) bool { return r.Privilege == m.Privilege }) {
			roles = append(roles, migrations.Role{Privilege: m.Privilege, Name: role(t, db, "")})
		}
	}
	return roles
}

// testDown goes up in one step, down in one step, up again, and then through
// every number in both directions.
func testDown(t *testing.T, db database) {
	roles := oneOfEach(t, db)
	must(t, db.Conn, rawCatalog) // its own table is there from now on
	empty := catalogRows(t, db)
	step := func(d format.Direction, from, to int) {
		t.Helper()
		if err := printed(t, db, format.Options{Direction: d, From: from, To: to, Roles: roles}); err != nil {
			t.Fatalf("%s %d to %d: %v", d, from, to, err)
		}
	}
	step(format.Up, 0, 0)
	upToDate(t, db, migrations.Names{})
	whole := describe(t, db)
	must(t, db.Conn, `INSERT INTO outbox.events (topic) VALUES ('t')`)
	step(format.Down, 0, 0)
	if diff := cmp.Diff(empty, catalogRows(t, db)); diff != "" {
		t.Errorf("left after down (-before +after):\n%s", diff)
	}

	states := [][]string{describe(t, db)}
	all := migrations.All()
	for _, m := range all {
		step(format.Up, m.Version, m.Version)
		state := describe(t, db)
		if cmp.Equal(states[len(states)-1], state) {
			t.Errorf("%s changed nothing that is looked at", m)
		}
		states = append(states, state)
	}
	if diff := cmp.Diff(whole, states[len(all)]); diff != "" {
		t.Errorf("one by one is not as at once (-at once +one by one):\n%s", diff)
	}
	for i, m := range slices.Backward(all) {
		step(format.Down, m.Version, m.Version)
		if diff := cmp.Diff(states[i], describe(t, db)); diff != "" {
			t.Fatalf("after %s down (-before its up +after its down):\n%s", m, diff)
		}
	}
	if diff := cmp.Diff(empty, catalogRows(t, db)); diff != "" {
		t.Errorf("left after single steps (-before +after):\n%s", diff)
	}
	step(format.Up, 0, 4)
	step(format.Up, 5, 0)
	step(format.Down, 4, 0)
	if diff := cmp.Diff(states[3], describe(t, db)); diff != "" {
		t.Errorf("down to 4 (-want +got):\n%s", diff)
	}
	up(t, db, migrate.Options{Roles: roles})
	upToDate(t, db, migrations.Names{})
}

// testDownRefuses: what somebody else hung on an object, and what is gone
// already, is an error that takes nothing along.
func testDownRefuses(t *testing.T, db database) {
	up(t, db, migrate.Options{})
	for _, c := range []struct{ hang, undo, message string }{
		{`CREATE VIEW public.mine AS SELECT id FROM outbox.events`, `DROP VIEW public.mine`, "other objects depend on it"},
		{`CREATE TABLE public.mine (id uuid REFERENCES outbox.events)`, `DROP TABLE public.mine`, "other objects depend on it"},
		{`CREATE TABLE public.mine (id uuid DEFAULT outbox.uuid_v7())`, `DROP TABLE public.mine`, "other objects depend on it"},
		{`CREATE TABLE outbox.mine (id uuid)`, `DROP TABLE outbox.mine`, "other objects depend on it"},
		{`CREATE TABLE public.mine (id uuid PRIMARY KEY); ALTER PUBLICATION outrider ADD TABLE public.mine`, `DROP TABLE public.mine`, "holds other tables: public.mine"},
		{`ALTER TABLE outbox.dead RENAME TO moved`, `ALTER TABLE outbox.moved RENAME TO dead`, `table "dead" does not exist`},
	} {
		must(t, db.Conn, c.hang)
		before := describe(t, db)
		if err := printed(t, db, format.Options{Direction: format.Down}); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: down says %v", c.hang, err)
		}
		if diff := cmp.Diff(before, describe(t, db)); diff != "" {
			t.Errorf("%s: a refused down changed (-before +after):\n%s", c.hang, diff)
		}
		must(t, db.Conn, c.undo)
	}
	if err := printed(t, db, format.Options{Direction: format.Down}); err != nil {
		t.Error(err)
	}
}

// testOwner: with an owner everything belongs to him, whoever runs the script.
func testOwner(t *testing.T, db database) {
	owner, runner := role(t, db, ""), role(t, db, "")
	app := migrations.Role{Privilege: migrations.AppRole, Name: role(t, db, "")}
	must(t, db.Conn, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %q; GRANT %q TO %q", db.name, owner, owner, runner))
	must(t, db.Conn, fmt.Sprintf("SET SESSION AUTHORIZATION %q", runner))
	o := format.Options{Direction: format.Up, Owner: owner, Roles: []migrations.Role{app}}
	if err := printed(t, db, o); err != nil {
		t.Fatal(err)
	}
	if who := get[string](t, db.Conn, "SELECT current_user"); who != runner {
		t.Errorf("after the script the role is %q, want %q", who, runner)
	}
	const strangers = `SELECT count(*)::int FROM (SELECT relowner AS owner FROM pg_class WHERE relnamespace = 'outbox'::regnamespace
 UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 'outbox'
 UNION ALL SELECT pubowner FROM pg_publication) AS o WHERE pg_get_userbyid(owner) <> $1`
	if n := get[int](t, db.Conn, strangers, owner); n != 0 {
		t.Errorf("%d objects are not the owner's", n)
	}
	if n := get[int](t, db.Conn, strangers, runner); n < 10 {
		t.Errorf("only %d objects were looked at", n)
	}
	must(t, db.Conn, "RESET SESSION AUTHORIZATION")
	upToDate(t, db, migrations.Names{})

	// A runner who may not become the owner changes nothing.
	must(t, db.Conn, fmt.Sprintf("REVOKE %q FROM %q; SET SESSION AUTHORIZATION %q", owner, runner, runner))
	o.Direction = format.Down
	if err := printed(t, db, o); err == nil || !strings.Contains(err.Error(), "permission denied to set role") {
		t.Errorf("as a stranger: %v", err)
	}
	must(t, db.Conn, "RESET SESSION AUTHORIZATION")
	if err := printed(t, db, o); err != nil {
		t.Error(err)
	}
}
