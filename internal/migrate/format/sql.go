package format

import (
	"fmt"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// plain is SQL for psql and everything that sends a script as it is.
type plain struct{}

func (plain) files(c Change) ([]File, error) {
	name := fmt.Sprintf("%03d_%s", c.Version, c.Name)
	return []File{
		{name + ".up.sql", Up, plainHead + transaction(c.Up, c.owner)},
		{name + ".down.sql", Down, "-- Takes the outbox of Outrider back, with the rows in it. One transaction.\n\n" + transaction(c.Down, c.owner)},
	}, nil
}

const plainHead = "-- Outbox of Outrider, for Postgres 14 to 18. One transaction; it may be run again.\n" +
	"-- The server needs wal_level = logical. Roles must exist. The replication slot is made by the relay.\n\n"

func transaction(sql, owner string) string {
	return "BEGIN;\n" + migrations.SearchPath + "\n" + setRole(owner) + sql + "\nCOMMIT;\n"
}

// pair is two files of SQL, which the tool runs in a transaction each and does not take apart.
func pair(c Change, up, down string) []File {
	return []File{{up, Up, c.up()}, {down, Down, c.down()}}
}
