package download

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// plugin is pinned so that Maven asks for nothing but what is named here.
const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:"

// MavenArtifact copies one artifact, group:name:version, into dir.
func MavenArtifact(ctx context.Context, artifact, dir string) error {
	return run(ctx, dir, "mvn", "-C", "-B", "-ntp", "-q", plugin+"copy", "-Dartifact="+artifact, "-DoutputDirectory="+dir)
}

// MavenProject copies all runtime dependencies of a project into dir. pom is
// the text of its project file. A wrong checksum is an error (-C).
func MavenProject(ctx context.Context, pom, dir string) error {
	project, err := os.MkdirTemp("", "pom")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(project) }()
	file := filepath.Join(project, "pom.xml")
	if err := os.WriteFile(file, []byte(pom), 0o600); err != nil {
		return err
	}
	return run(ctx, project, "mvn", "-C", "-B", "-ntp", "-q", "-f", file,
		plugin+"copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
}

// NpmPackage fetches the archive of a package, name@version, into dir and
// returns its path. No script of the package is run.
func NpmPackage(ctx context.Context, spec, dir string) (string, error) {
	if err := run(ctx, dir, "npm", "pack", "--silent", spec); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil {
		return "", err
	}
	if len(files) != 1 {
		return "", fmt.Errorf("npm pack %s left %d archives", spec, len(files))
	}
	return files[0], nil
}

// run keeps the first lines of what the tool prints for the error: there the
// reason is, and advice follows.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) > 3 {
		lines = lines[:3]
	}
	return fmt.Errorf("%s: %w: %s", name, err, bytes.Join(lines, []byte(" ")))
}
