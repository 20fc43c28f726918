package download

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// plugin is pinned so that Maven asks for nothing but what is named here.
const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:"

// MavenArtifact copies one artifact, group:name:version, into dir.
func MavenArtifact(ctx context.Context, artifact, dir string) error {
	return run(ctx, dir, "mvn", "-C", "-B", "-ntp", "-q", plugin+"copy", "-Dartifact="+artifact, "-DoutputDirectory="+dir)
}

// MavenProject copies artifacts, each group:name:version, into dir, with all that
// they need to run. A wrong checksum is an error (-C).
func MavenProject(ctx context.Context, dir string, artifacts ...string) error {
	project, err := os.MkdirTemp("", "pom")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(project) }()
	file := filepath.Join(project, "pom.xml")
	if err := os.WriteFile(file, []byte(pom(artifacts)), 0o600); err != nil {
		return err
	}
	return run(ctx, project, "mvn", "-C", "-B", "-ntp", "-q", "-f", file,
		plugin+"copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+dir)
}

func pom(artifacts []string) string {
	const head = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local.test</groupId><artifactId>wanted</artifactId><version>1</version><packaging>pom</packaging><dependencies>
`
	var list strings.Builder
	for _, a := range artifacts {
		group, rest, _ := strings.Cut(a, ":")
		name, version, _ := strings.Cut(rest, ":")
		fmt.Fprintf(&list, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", group, name, version)
	}
	return head + list.String() + "</dependencies></project>\n"
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

// Python installs packages, each name==version, once, and returns a Python and
// the folder that its PYTHONPATH must name for them to be there. An error says
// what to install.
func Python(ctx context.Context, packages ...string) (python, path string, err error) {
	if python, err = exec.LookPath("python3"); err != nil {
		return "", "", fmt.Errorf("%w (apt-get install python3 python3-pip)", err)
	}
	version, err := exec.CommandContext(ctx, python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", python, err)
	}
	name := notInName.ReplaceAllString("python"+strings.TrimSpace(string(version))+" "+strings.Join(packages, " "), "-")
	path = filepath.Join(Cache(false), name)
	err = Once(ctx, path, func(tmp string) error {
		return run(ctx, tmp, python, append([]string{"-m", "pip", "install", "--quiet", "--no-input", "--only-binary", ":all:", "--target", tmp}, packages...)...)
	})
	if err != nil {
		return "", "", fmt.Errorf("%w (apt-get install python3-pip, and let it reach its registry once)", err)
	}
	return python, path, nil
}

// notInName is what a folder is better named without.
var notInName = regexp.MustCompile(`[^a-zA-Z0-9_.]+`)

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
