package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Database is the database of one service, with outbox and inbox, and the
// Outrider beside it.
type Database struct {
	URL string

	relay chaos.Relay
	mu    sync.Mutex
	now   *chaos.Process // nil: not running
}

// Database makes a database, applies the migrations and the service's own SQL,
// and starts Outrider. Variables are for the latter.
func (l *Lab) Database(ctx context.Context, name, sql string, variables ...string) (*Database, error) {
	d := &Database{URL: l.server.DatabaseURL(name)}
	if err := execute(ctx, l.server.URL(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return nil, err
	}
	d.relay = chaos.Relay{Binary: l.binary, Log: filepath.Join(l.folder.Path(), name+".outrider.log"), Env: append([]string{
		"OUTRIDER_NAME=" + name, "OUTRIDER_DATABASE_URL=" + d.URL, "OUTRIDER_KAFKA_BROKERS=" + strings.Join(l.Kafka.Brokers(), ","),
		"OUTRIDER_WAL_SENDER_TIMEOUT=3s", // after a kill the next one waits this long, for the sake of order
	}, variables...)}
	l.closing(func() error { d.KillOutrider(); return nil })
	if _, err := d.relay.Command(ctx, "migrate", "up"); err != nil {
		return nil, err
	}
	if err := execute(ctx, d.URL, sql); err != nil {
		return nil, err
	}
	err := d.StartOutrider(ctx)
	return d, err
}

// Inbox makes a database of a service that only reads events: inbox, the
// service's own SQL, no Outrider.
func (l *Lab) Inbox(ctx context.Context, name, sql string) (*Database, error) {
	d := &Database{URL: l.server.DatabaseURL(name)}
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Inbox)
	if err == nil {
		err = execute(ctx, l.server.URL(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	}
	if err == nil {
		err = execute(ctx, d.URL, script+sql)
	}
	return d, err
}

func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	_, err = conn.Exec(ctx, sql)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("prepare a database: %w", err)
	}
	return nil
}

// Get is the one value of a query, as text.
func (d *Database) Get(ctx context.Context, sql string, args ...any) (value string, err error) {
	conn, err := pgx.Connect(ctx, d.URL)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, errors.Join(err, conn.Close(ctx))
}

// StartOutrider starts it unless it runs, and waits until it leads.
func (d *Database) StartOutrider(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now != nil && d.now.Running() {
		return nil
	}
	p, err := d.relay.Start()
	if err != nil {
		return err
	}
	d.now = p
	err = Poll(ctx, func() error {
		s, err := p.Status(ctx)
		if err == nil && s.Role != "leader" {
			err = fmt.Errorf("it is %s: %s", s.Role, s.Reason)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for Outrider: %w\n%s", err, p.LogTail(4000))
	}
	return nil
}

// KillOutrider is kill -9. One that does not run is left alone.
func (d *Database) KillOutrider() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now != nil {
		d.now.Kill()
	}
}
