package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Standby makes a hot standby that streams from s through a physical slot, and
// returns when it accepts connections. name becomes the slot's name and the
// application_name: lower-case letters, digits and underscores. The caller
// closes the standby.
//
// The data is an online copy, as pg_basebackup makes one: fetched builds do not
// have that program, and on one machine none is needed.
func (s *Server) Standby(ctx context.Context, name string, settings ...string) (*Server, error) {
	if _, err := s.running(); err != nil {
		return nil, fmt.Errorf("make a standby: %w", err)
	}
	standby, err := s.backup(ctx, name, "standby.signal")
	if err != nil {
		return nil, fmt.Errorf("make a standby: %w", err)
	}
	conninfo := fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres application_name=%s", s.folder.Path(), s.port, name)
	err = standby.Set(append([]string{
		"unix_socket_directories=" + standby.folder.Path(), "primary_conninfo=" + conninfo, "primary_slot_name=" + name,
		"hot_standby_feedback=on", "wal_receiver_status_interval=1s", "wal_retrieve_retry_interval=200ms",
	}, settings...)...)
	if err == nil {
		err = standby.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a standby: %w", err), standby.Close())
	}
	return standby, nil
}

// backup copies the running server. The slot, if one is named, comes first: it
// keeps the WAL that the copy will need. So does the signal, if any.
func (s *Server) backup(ctx context.Context, name, signal string) (*Server, error) {
	// One connection for all: the backup ends with the session that began it.
	c, err := pgconn.Connect(ctx, s.SocketURL())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	begin, end := "pg_backup_start('standby', true)", "pg_backup_stop(false)"
	if s.Major() < 15 {
		begin, end = "pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)"
	}
	calls := []string{begin}
	if name != "" {
		calls = []string{"pg_create_physical_replication_slot('" + strings.ReplaceAll(name, "'", "''") + "', true)", begin}
	}
	for _, call := range calls {
		if err := c.Exec(ctx, "SELECT "+call).Close(); err != nil {
			return nil, err
		}
	}
	standby, err := create(s.build, s.id, filepath.Dir(s.folder.Path()), s.Dir())
	if err != nil {
		return nil, err
	}
	standby.access = s.access
	if s.access.caFile != "" {
		standby.access.caFile = filepath.Join(standby.Dir(), filepath.Base(s.access.caFile)) // copied along
	}
	results, err := c.Exec(ctx, "SELECT labelfile FROM "+end).ReadAll()
	if err == nil {
		err = standby.write("backup_label", results[0].Rows[0][0])
	}
	if err == nil && signal != "" {
		err = standby.write(signal, nil)
	}
	if err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// write writes a file that the server may read into its data folder.
func (s *Server) write(name string, text []byte) error {
	path := filepath.Join(s.Dir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return s.id.own(path)
}

// Promote makes a standby a primary of a new timeline, and returns when it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	if _, err := s.running(); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	c, err := pgconn.Connect(ctx, s.SocketURL())
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	results, err := c.Exec(ctx, "SELECT pg_promote(true, 60)").ReadAll()
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if string(results[0].Rows[0][0]) != "t" {
		return errors.New("promote: the server is not a primary after 60 s")
	}
	return nil
}
