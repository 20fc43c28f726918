package format

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Write puts files into a folder, which it makes if it is not there, and returns
// the paths of those that were not there yet. A file that is there with the same
// content stays; with other content it is an error, and nothing is written.
func Write(dir string, files []File) (written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // sources, as mkdir makes their folder
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	missing := make([]bool, len(files))
	for i, f := range files {
		there, err := root.ReadFile(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing[i] = true
		case err != nil:
			return nil, fmt.Errorf("look at what is there: %w", err)
		case !bytes.Equal(there, []byte(f.Text)):
			return nil, fmt.Errorf("%s is there with other content, and a migration that may have run never changes: "+
				"print with the options it was printed with, or into another folder, or as new migrations with another --base", f.in(dir))
		}
	}
	for i, f := range files {
		if !missing[i] {
			continue
		}
		if err := f.create(root); err != nil {
			return written, fmt.Errorf("write %s: %w", f.in(dir), err)
		}
		written = append(written, f.in(dir))
	}
	return written, nil
}

func (f File) in(dir string) string { return filepath.Join(dir, filepath.FromSlash(f.Path)) }

// create fails if somebody else made the file meanwhile.
func (f File) create(root *os.Root) error {
	if err := root.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
		return err
	}
	out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = out.WriteString(f.Text)
	return errors.Join(err, out.Close())
}
