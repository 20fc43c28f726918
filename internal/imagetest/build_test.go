package imagetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
)

// What the images are told of their build.
const (
	version  = "v9.8.7-image"
	revision = "0123456789abcdef0123456789abcdef01234567"
	created  = "2026-11-24T00:00:00Z"
)

// caFile is where Debian's ca-certificates keeps them, and where Go looks first.
const caFile = "etc/ssl/certs/ca-certificates.crt"

// engine is buildah with a store of its own.
type engine struct {
	t     *testing.T
	store string
}

// newEngine ends the test if this machine cannot build images.
func newEngine(t *testing.T) *engine {
	t.Helper()
	for _, program := range []string{"buildah", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			harness.Missing(t, fmt.Errorf("%w; apt-get install buildah busybox-static", err))
		}
	}
	if os.Geteuid() != 0 {
		harness.Missing(t, errors.New("images are built and run by root here: sudo -E make test ARGS=./internal/imagetest"))
	}
	e := &engine{t: t, store: t.TempDir()}
	t.Cleanup(func() { e.do("rm", "--all") }) // unmounts, too
	return e
}

// do runs one command of buildah and returns what it printed.
func (e *engine) do(args ...string) string {
	e.t.Helper()
	args = append([]string{
		"--root", filepath.Join(e.store, "images"), "--runroot", filepath.Join(e.store, "run"), "--storage-driver", "vfs",
	}, args...)
	return command(e.t, "buildah", args...)
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), diagnosis.String())
	}
	return strings.TrimSpace(out.String())
}

// toolchain makes the stand-in for an image of Go: a shell, CA certificates, and
// variables that point at what build mounts.
func (e *engine) toolchain(arch string) string {
	e.t.Helper()
	container := e.do("from", "scratch")
	root := e.do("mount", container)
	for _, dir := range []string{"bin", "root", "tmp", filepath.Dir(caFile)} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			e.t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		e.t.Fatal(err)
	}
	copyFile(e.t, busybox, filepath.Join(root, "bin", "busybox"), 0o755)
	copyFile(e.t, "/"+caFile, filepath.Join(root, caFile), 0o644)
	if err := os.Symlink("busybox", filepath.Join(root, "bin", "sh")); err != nil {
		e.t.Fatal(err)
	}
	config := []string{"config", "--arch", arch}
	for _, env := range []string{"PATH=/usr/local/go/bin:/bin", "GOTOOLCHAIN=local", "GOPROXY=off", "GOMODCACHE=/go/pkg/mod", "GOCACHE=/go/cache", "HOME=/root"} {
		config = append(config, "--env", env)
	}
	e.do(append(config, container)...)
	name := "localhost/go-" + arch
	e.do("commit", "--quiet", "--rm", container, name)
	return name
}

// build makes the image as the Dockerfile says, for an architecture by Go's name.
func (e *engine) build(arch string) (image string) {
	e.t.Helper()
	project := command(e.t, "go", "list", "-m", "-f", "{{.Dir}}")
	command(e.t, "go", "-C", project, "mod", "download") // the build has no network
	image = "localhost/outrider-" + arch
	e.do("build", "--isolation", "chroot", "--format", "docker", "--pull-never", "--platform", "linux/"+arch, "--tag", image,
		"--volume", command(e.t, "go", "env", "GOROOT")+":/usr/local/go:ro",
		"--volume", command(e.t, "go", "env", "GOMODCACHE")+":/go/pkg/mod",
		"--volume", command(e.t, "go", "env", "GOCACHE")+":/go/cache",
		"--build-arg", "GO_IMAGE="+e.toolchain(arch), "--build-arg", "VERSION="+version, "--build-arg", "REVISION="+revision, "--build-arg", "CREATED="+created,
		project)
	return image
}

// settings is what an image says of itself, in Docker's format.
type settings struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User            string
		Entrypoint, Cmd []string
		Env             []string
		Labels          map[string]string
		ExposedPorts    map[string]struct{}
		Volumes         map[string]struct{}
		Healthcheck     struct{ Test []string }
	} `json:"config"`
}

func (e *engine) inspect(image string) settings {
	e.t.Helper()
	var said struct{ Docker settings }
	if err := json.Unmarshal([]byte(e.do("inspect", "--type", "image", image)), &said); err != nil {
		e.t.Fatal(err)
	}
	return said.Docker
}

// root mounts the files of an image so that nobody can write to them.
func (e *engine) root(image string) string {
	e.t.Helper()
	from := e.do("mount", e.do("from", "--pull-never", image))
	to := e.t.TempDir()
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		e.t.Fatalf("mount the files of %s: %v", image, err)
	}
	e.t.Cleanup(func() {
		if err := syscall.Unmount(to, 0); err != nil {
			e.t.Errorf("unmount the files of %s: %v", image, err)
		}
	})
	if err := syscall.Mount("", to, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		e.t.Fatalf("make the files of %s read-only: %v", image, err)
	}
	return to
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
