package format

import (
	"strings"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// A setting with a dot is anybody's to make. What set_config sets for the
// transaction is gone in the next one, which tells whether there is one.
const (
	guardBegin = `-- What is set here ends with this migration; the tool goes on in the same transaction.
DO $do$
BEGIN
  PERFORM pg_catalog.set_config('outrider.role', pg_catalog.current_setting('role'), true),
    pg_catalog.set_config('outrider.search_path', pg_catalog.current_setting('search_path'), true);
END
$do$;
`
	guardCheck = `DO $do$
BEGIN
  IF coalesce(current_setting('outrider.role', true), '') = '' THEN
    RAISE no_active_sql_transaction USING
      MESSAGE = 'this migration must run in one transaction',
      HINT = 'Tell the migration tool to run it in a transaction; nothing was changed.';
  END IF;
END
$do$;
`
	guardEnd = `
DO $do$
BEGIN
  PERFORM set_config('role', current_setting('outrider.role'), true),
    set_config('search_path', current_setting('outrider.search_path'), true);
END
$do$;
`
)

// guarded sets search path and role around sql, for tools that open the transaction.
func guarded(sql, owner string) string {
	return guardBegin + migrations.SearchPath + "\n" + guardCheck + setRole(owner) + sql + guardEnd
}

// setRole makes owner the one who does everything that follows. ALTER ... OWNER
// at the end would need the same membership, and CREATE on the schema for the
// new owner, and a list of all objects that is never complete.
func setRole(owner string) string {
	if owner == "" {
		return ""
	}
	return `SET LOCAL ROLE "` + strings.ReplaceAll(owner, `"`, `""`) + "\";\n"
}

func (c Change) up() string   { return guarded(c.Up, c.owner) }
func (c Change) down() string { return guarded(c.Down, c.owner) }
