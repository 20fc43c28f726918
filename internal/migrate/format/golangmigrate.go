package format

import "fmt"

// golangMigrate has a file a direction and sends it as one message of the simple
// query protocol, which Postgres runs as one transaction. It must not be told to
// take files apart (x-multi-statement), which it does at every semicolon.
type golangMigrate struct{}

func (golangMigrate) files(c Change) ([]File, error) {
	name := fmt.Sprintf("%06d_%s", c.Version, c.Name)
	return pair(c, name+".up.sql", name+".down.sql"), nil
}
