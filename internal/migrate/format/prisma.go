package format

import "fmt"

// prisma has a folder a migration, ordered by a name that begins with a
// timestamp, and sends a script as it is. It runs no down file; one beside the
// script is its habit, for "prisma db execute".
type prisma struct{}

func (prisma) files(c Change) ([]File, error) {
	folder := fmt.Sprintf("%014d_%s", c.Version, c.Name)
	return pair(c, folder+"/migration.sql", folder+"/down.sql"), nil
}
