package migrations

import (
	"slices"
	"strings"
)

// Inbox stands for the files that a consumer's database needs, where privileges
// are asked for: [Script] with it makes an inbox without an outbox.
const Inbox Privilege = "inbox"

// partLine is in the file of a migration that belongs to a part.
const partLine = "\n-- part: "

// InInbox reports whether the inbox needs m: its own files, and the schema.
func (m Migration) InInbox() bool {
	return m.Version == 1 || strings.Contains(m.sql, partLine+string(Inbox)+"\n")
}

// Wanted reports whether m is one of only: of a privilege that it names, or of
// the inbox where it names [Inbox]. Nothing named means all.
func (m Migration) Wanted(only []Privilege) bool {
	return len(only) == 0 || slices.Contains(only, m.Privilege) || slices.Contains(only, Inbox) && m.InInbox()
}
