package download

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xi2/xz"
)

// JarOfTxz unpacks into dir the one .txz that a jar holds.
func JarOfTxz(jar, dir string) error {
	z, err := zip.OpenReader(jar)
	if err != nil {
		return fmt.Errorf("open %s: %w", jar, err)
	}
	defer func() { _ = z.Close() }()
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return fmt.Errorf("no .txz in %s", jar)
	}
	r, err := z.File[i].Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	x, err := xz.NewReader(bufio.NewReader(r), 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", z.File[i].Name, err)
	}
	return untar(x, dir, "")
}

// Tgz unpacks into dir what the archive holds below the folder strip.
func Tgz(archive, dir, strip string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return fmt.Errorf("read %s: %w", archive, err)
	}
	return untar(r, dir, strip)
}

// untar goes through an [os.Root], so that nothing in an archive can name a
// place outside dir.
func untar(r io.Reader, dir, strip string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		name, ok := strings.CutPrefix(filepath.ToSlash(filepath.Clean(h.Name)), strip)
		if name = strings.TrimPrefix(name, "/"); !ok || name == "" || name == "." {
			continue
		}
		if err := entry(root, name, h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func entry(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		// Readable for all: the server may run as another user than we.
		w, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(h.Mode)&0o755|0o444)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		return errors.Join(err, w.Close())
	default:
		return nil // hard links and devices do not occur in these archives
	}
}
