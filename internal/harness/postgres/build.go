package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// build is where the programs of one Postgres are, or a server that runs already.
type build struct {
	major int
	bin   string // folder with postgres and initdb
	url   string // instead: somebody else's server
}

// ErrNoBuild means that no Postgres of the wanted kind could be had. Its text
// ends with what to type.
var ErrNoBuild = errors.New("no Postgres")

// Variable is the environment variable that names a build or a server of major.
func Variable(major int) string { return fmt.Sprintf("TEST_POSTGRES_%d", major) }

type lookup func(ctx context.Context, major int) (build, error)

// find looks where doc.go says.
func find(ctx context.Context, o *Options, id identity) (build, error) {
	majors := Majors()
	slices.Reverse(majors)
	if o.Major != 0 {
		if !slices.Contains(majors, o.Major) {
			return build{}, fmt.Errorf("find Postgres %d: only %v are supported", o.Major, Majors())
		}
		majors = []int{o.Major}
	}
	cache := download.Cache(id.foreign())
	cached := func(ctx context.Context, major int) (build, error) {
		return at(ctx, major, filepath.Join(cache, folder(major), "bin")), nil
	}
	looks := []lookup{fromEnvironment, cached}
	switch {
	case o.Distribution:
		looks = []lookup{fromDistribution}
	case o.Major == 0:
		looks = append(looks, fromDistribution)
	}
	for _, look := range looks {
		for _, major := range majors {
			if b, err := look(ctx, major); err != nil || b.major != 0 {
				return b, err
			}
		}
	}
	if o.Distribution {
		return build{}, missing(o, errors.New("the distribution's build was demanded and is not installed"))
	}
	return fetch(ctx, o, majors[0], filepath.Join(cache, folder(majors[0])))
}

// missing explains cause and says what mends it. A distribution has one major
// or two; Maven has them all.
func missing(o *Options, cause error) error {
	kind, mend, variable := "", "postgresql", Variable(Majors()[len(Majors())-1])
	if o.Major != 0 {
		kind, mend, variable = fmt.Sprintf(" %d", o.Major), fmt.Sprintf("postgresql-%d", o.Major), Variable(o.Major)
	}
	if _, err := exec.LookPath("mvn"); err != nil && o.Major != 0 && !o.Distribution {
		mend = "maven"
	}
	return fmt.Errorf("%w%s: %w; mend it with: apt-get install %s (or set %s to the folder of a build)",
		ErrNoBuild, kind, cause, mend, variable)
}

// fromEnvironment fails if the variable is set to what cannot be used: going on
// with another build would test something else than asked.
func fromEnvironment(ctx context.Context, major int) (build, error) {
	v := os.Getenv(Variable(major))
	switch {
	case v == "":
		return build{}, nil
	case strings.HasPrefix(v, "postgres://"), strings.HasPrefix(v, "postgresql://"):
		return build{major: major, url: v}, nil
	}
	for _, dir := range []string{filepath.Join(v, "bin"), v} {
		if b := at(ctx, major, dir); b.major != 0 {
			return b, nil
		}
	}
	return build{}, fmt.Errorf("%s: neither a URL nor a folder with bin/postgres and bin/initdb of version %d", Variable(major), major)
}

// fromDistribution knows the places of Debian, of the PGDG packages for Red
// Hat, of Alpine and of Homebrew, none of which is on PATH, and last PATH.
func fromDistribution(ctx context.Context, major int) (build, error) {
	n := strconv.Itoa(major)
	dirs := []string{
		"/usr/lib/postgresql/" + n + "/bin", "/usr/pgsql-" + n + "/bin", "/usr/libexec/postgresql" + n,
		"/opt/homebrew/opt/postgresql@" + n + "/bin", "/usr/local/opt/postgresql@" + n + "/bin",
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, dir := range dirs {
		if b := at(ctx, major, dir); b.major != 0 {
			return b, nil
		}
	}
	return build{}, nil
}

var versionText = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// at returns the build in dir if it is there, runs, and is of that major.
func at(ctx context.Context, major int, dir string) build {
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return build{}
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return build{}
	}
	m := versionText.FindSubmatch(out)
	if len(m) < 2 || string(m[1]) != strconv.Itoa(major) {
		return build{}
	}
	return build{major: major, bin: dir}
}
