package migrate

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// object is what the catalog says of something that a migration makes.
type object struct {
	Identity   string // as in the COMMENT ON statement of it
	Definition string // of a column of a table its type, NOT NULL, DEFAULT; of a function its body; else empty
	Problem    string // what is wrong with it, whatever its definition
}

// comments finds the objects of a file: each has a comment, so the comments are
// the list of them, and there is no second list that could differ.
var comments = regexp.MustCompile(`(?m)^COMMENT ON ([A-Z]+ .+?) IS '`)

// file is the SQL of a migration, and of those that were applied after it: they
// may replace what it made.
type file struct {
	text  string
	later string
}

// compare returns the objects of a file that are gone, and those that are not as the file makes them.
func (f file) compare(objects map[string]object) (gone, altered []string) {
	for _, match := range comments.FindAllStringSubmatch(f.text, -1) {
		identity := match[1]
		o, ok := objects[identity]
		switch {
		case !ok && droppedIn(f.later, identity):
		case !ok:
			gone = append(gone, "gone: "+identity)
		case o.Problem != "":
			altered = append(altered, "altered: "+identity+": "+o.Problem)
		case strings.HasPrefix(identity, "COLUMN ") && o.Definition != "" && !o.columnIn(f.text) && !o.columnIn(f.later):
			altered = append(altered, "altered: "+identity+": is "+o.Definition)
		case strings.HasPrefix(identity, "FUNCTION ") && !strings.Contains(f.text, o.Definition) && !strings.Contains(f.later, o.Definition):
			altered = append(altered, "altered: "+identity+": has another body")
		}
	}
	return gone, altered
}

// droppedIn looks for the statement that drops an object, in a later file.
func droppedIn(text, identity string) bool {
	kind, name, _ := strings.Cut(identity, " ")
	statement := `DROP ` + kind + ` (IF EXISTS )?` + regexp.QuoteMeta(name)
	part, table, of := strings.Cut(name, " ON ")
	if kind == "COLUMN" {
		at := strings.LastIndexByte(name, '.')
		part, table, of = name[at+1:], name[:at], true
	}
	if of && kind != "TRIGGER" {
		statement = `ALTER TABLE ` + regexp.QuoteMeta(table) + `\s[^;]*DROP ` + kind + ` (IF EXISTS )?` + regexp.QuoteMeta(part)
	}
	return regexp.MustCompile(statement + `[\s;,]`).MatchString(text)
}

// columnIn looks for the column in the file, in CREATE TABLE or in ADD COLUMN:
// name, type as Postgres spells it, NOT NULL, and whether it has a default.
func (o object) columnIn(text string) bool {
	at := strings.LastIndexByte(o.Identity, '.')
	table, name := strings.TrimPrefix(o.Identity[:at], "COLUMN "), o.Identity[at+1:]
	kind, filled := strings.CutSuffix(o.Definition, " DEFAULT")
	kind, required := strings.CutSuffix(kind, " NOT NULL")
	_, body, _ := strings.Cut(text, "CREATE TABLE IF NOT EXISTS "+table+" (")
	body, _, _ = strings.Cut(body, "\n)")
	for _, alter := range regexp.MustCompile(`ALTER TABLE `+regexp.QuoteMeta(table)+`\s[^;]*;`).FindAllString(text, -1) {
		body += "\n" + alter
	}
	column := regexp.MustCompile(`(?m)(^  |ADD COLUMN (IF NOT EXISTS )?)` + regexp.QuoteMeta(name) + ` +` + regexp.QuoteMeta(kind) + `([ ,;].*)?$`)
	found, _, _ := strings.Cut(column.FindString(body), ", ADD COLUMN") // several may stand in a line
	// Postgres makes an identity column NOT NULL by itself.
	identity := strings.Contains(found, "AS IDENTITY")
	return found != "" && required == (identity || strings.Contains(found, "NOT NULL")) && filled == (identity || strings.Contains(found, " DEFAULT "))
}

// catalogQuery lists what is in schema $1 and publication $2, spelled as in
// COMMENT ON. Triggers of a view cannot be ENABLE ALWAYS, and need not: they are
// INSTEAD OF. pg_publication_tables has attnames and rowfilter from Postgres 15
// on, and is read as JSON therefore.
const catalogQuery = `
SELECT 'SCHEMA "' || nspname || '"', '', '' FROM pg_namespace WHERE nspname = $1::text
UNION ALL
SELECT CASE relkind WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END || ' "' || $1::text || '".' || relname, '',
  CASE WHEN NOT coalesce(i.indisvalid, true) THEN 'is invalid' WHEN relpersistence <> 'p' THEN 'is not logged, so it is not decoded' ELSE '' END
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE relnamespace = to_regnamespace($3::text) AND relkind IN ('r', 'p', 'i', 'I', 'S', 'v')
UNION ALL
SELECT 'COLUMN "' || $1::text || '".' || relname || '.' || attname, CASE relkind WHEN 'v' THEN '' ELSE format_type(atttypid, atttypmod)
  || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END || CASE WHEN atthasdef OR attidentity <> '' THEN ' DEFAULT' ELSE '' END END, ''
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = to_regnamespace($3::text) AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'FUNCTION "' || $1::text || '".' || proname || '(' || oidvectortypes(proargtypes) || ')', prosrc, ''
FROM pg_proc WHERE pronamespace = to_regnamespace($3::text)
UNION ALL
SELECT 'CONSTRAINT ' || conname || ' ON "' || $1::text || '".' || relname, '', CASE WHEN convalidated THEN '' ELSE 'is not validated' END
FROM pg_constraint o JOIN pg_class c ON c.oid = conrelid WHERE relnamespace = to_regnamespace($3::text)
UNION ALL
SELECT 'TRIGGER ' || tgname || ' ON "' || $1::text || '".' || relname, '', CASE WHEN tgenabled = 'A' OR relkind = 'v' THEN '' ELSE 'is not enabled ALWAYS' END
FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = to_regnamespace($3::text) AND NOT tgisinternal
UNION ALL
SELECT 'PUBLICATION "' || pubname || '"', '', CASE
  WHEN NOT pubinsert THEN 'does not publish inserts'
  WHEN pubupdate OR pubdelete OR pubtruncate THEN 'publishes more than inserts'
  WHEN t IS NULL THEN 'does not hold table events'
  WHEN t->>'rowfilter' IS NOT NULL THEN 'filters rows of table events'
  WHEN t ? 'attnames' AND NOT (t->'attnames' @> '["id", "topic", "key", "type", "payload", "payload_bytes", "headers"]')
    THEN 'leaves out columns of table events'
  ELSE '' END
FROM pg_publication p LEFT JOIN LATERAL (SELECT to_jsonb(x) AS t FROM pg_publication_tables x
  WHERE x.pubname = p.pubname AND schemaname = $1::text AND tablename = 'events') AS held ON true
WHERE pubname = $2::text`

func readCatalog(ctx context.Context, conn *pgx.Conn, n migrations.Names) (map[string]object, error) {
	rows, err := conn.Query(ctx, catalogQuery, n.Schema, n.Publication, pgx.Identifier{n.Schema}.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object])
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	objects := make(map[string]object, len(list))
	for _, o := range list {
		objects[o.Identity] = o
	}
	return objects, nil
}
