package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// shared is a server that runs already, and the database that is ours on it.
type shared struct {
	admin url.URL // as it came
	url   url.URL // with our database
	name  string  // of our database; "" once dropped
}

func openShared(ctx context.Context, b build, o *Options) (*Server, error) {
	if len(o.Settings) > 0 || o.Auth != AuthTrust || o.TLS || o.HBA != nil || o.Fsync {
		return nil, fmt.Errorf("open %s with options of its own: %w", Variable(b.major), ErrShared)
	}
	admin, err := url.Parse(b.url)
	if err != nil {
		return nil, fmt.Errorf("%s: not a URL", Variable(b.major)) // the cause may quote a password
	}
	config, err := pgconn.ParseConfig(b.url)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Variable(b.major), err)
	}
	sh := &shared{admin: *admin, url: *admin, name: "outrider_test_" + strings.ToLower(rand.Text()[:12])}
	sh.url.Path = "/" + sh.name
	version, err := sh.exec(ctx, "SHOW server_version_num")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", Variable(b.major), err)
	}
	if n, err := strconv.Atoi(version); err != nil || n/10000 != b.major {
		return nil, fmt.Errorf("%s names a server of version %s", Variable(b.major), version)
	}
	if _, err := sh.exec(ctx, "CREATE DATABASE "+sh.name); err != nil {
		return nil, fmt.Errorf("make a database on %s: %w", Variable(b.major), err)
	}
	return &Server{build: b, shared: sh, port: int(config.Port)}, nil
}

func (sh *shared) database(name string) string {
	u := sh.admin
	u.Path = "/" + name
	return u.String()
}

func (sh *shared) drop(ctx context.Context) error {
	if sh.name == "" {
		return nil
	}
	if _, err := sh.exec(ctx, "DROP DATABASE "+sh.name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop the database of a test: %w", err)
	}
	sh.name = ""
	return nil
}

// exec returns the first value that sql returns, if any.
func (sh *shared) exec(ctx context.Context, sql string) (value string, err error) {
	c, err := pgconn.Connect(ctx, sh.admin.String())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}
