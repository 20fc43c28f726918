package format

import (
	"fmt"
	"strings"
)

// flyway has versioned and undo files, and knows how Postgres quotes. It replaces
// ${...} everywhere, and stops where it knows no such placeholder; only a file
// beside the script can tell it not to.
type flyway struct{}

func (flyway) files(c Change) ([]File, error) {
	name := fmt.Sprintf("%d__%s.sql", c.Version, c.Name)
	var files []File
	for _, f := range pair(c, "V"+name, "U"+name) {
		files = append(files, f)
		if strings.Contains(f.Text, "${") {
			files = append(files, File{f.Path + ".conf", f.Direction, "placeholderReplacement=false\n"})
		}
	}
	return files, nil
}
