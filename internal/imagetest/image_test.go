package imagetest_test

import (
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

var broker kafka.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Closing(m)) }

// binary is the program in the image.
const binary = "usr/local/bin/outrider"

// nobody is who runs it: nonroot, as distributions of images without a shell number it.
const nobody = 65532

// TestImage looks at the image for both platforms, and runs the one that runs here.
func TestImage(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	e := newEngine(t)
	for arch, machine := range machines {
		t.Run(arch, func(t *testing.T) {
			e := &engine{t: t, store: e.store}
			image := e.build(arch)
			says, root := e.inspect(image), e.root(image)
			t.Run("says", func(t *testing.T) { checkSettings(t, says, arch) })
			t.Run("holds", func(t *testing.T) { checkFiles(t, root, machine) })
			if arch == runtime.GOARCH {
				t.Run("runs", func(t *testing.T) { checkRuns(t, container{root: root, says: says}) })
			}
		})
	}
}

func checkSettings(t *testing.T, says settings, arch string) {
	t.Helper()
	var want settings
	want.Architecture, want.OS = arch, "linux"
	want.Config.User = "65532:65532"
	want.Config.Entrypoint, want.Config.Cmd = []string{"/" + binary}, []string{"run"}
	want.Config.ExposedPorts = map[string]struct{}{"8464/tcp": {}}
	want.Config.Healthcheck.Test = []string{"CMD", "/" + binary, "healthcheck"}
	want.Config.Volumes = map[string]struct{}{}
	want.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	label := "org.opencontainers.image."
	want.Config.Labels = map[string]string{
		label + "title": "outrider", label + "description": "Streams a transactional outbox from Postgres to Kafka",
		label + "source": "https://github.com/outrider-cdc/outrider", label + "licenses": "Apache-2.0",
		label + "version": version, label + "revision": revision, label + "created": created,
	}
	for name := range says.Config.Labels { // the engine signs, too
		if !strings.HasPrefix(name, label) {
			delete(says.Config.Labels, name)
		}
	}
	if diff := cmp.Diff(want, says); diff != "" {
		t.Errorf("the image says of itself (-want +got):\n%s", diff)
	}
}

// checkFiles wants nothing in the image but the program and the certificates: no
// shell, no package manager, no libraries.
func checkFiles(t *testing.T, root string, machine elf.Machine) {
	t.Helper()
	var files []string
	var octets int64
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files, octets = append(files, name), octets+info.Size()
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 || info.Mode()&(0o022|fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s has mode %v and owner %d; who runs the image could change it", name, info.Mode(), owner)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{caFile, binary}, files); diff != "" {
		t.Errorf("files of the image (-want +got):\n%s", diff)
	}
	t.Logf("%.1f MiB", float64(octets)/(1<<20))
	if octets > 25<<20 {
		t.Errorf("the image has %d octets, more than 25 MiB", octets)
	}
	if pem, err := os.ReadFile(filepath.Join(root, caFile)); err != nil || strings.Count(string(pem), "BEGIN CERTIFICATE") < 50 {
		t.Errorf("%s does not hold the certificates of the world: %d octets, %v", caFile, len(pem), err)
	}
	program, err := elf.Open(filepath.Join(root, binary))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	if program.Machine != machine {
		t.Errorf("the program is for %v, not %v", program.Machine, machine)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program wants a dynamic linker")
		}
	}
}
