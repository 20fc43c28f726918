package postgres

import (
	"log/slog"
	"slices"
)

// Majors are the major versions that Outrider supports, oldest first.
func Majors() []int { return []int{14, 15, 16, 17, 18} }

// Auth values of [Options].
const (
	AuthTrust = ""      // everybody on this machine is let in
	AuthScram = "scram" // a password over TCP, in [Server.URL]; the socket stays open
)

// Options say which server is wanted. The zero value is any supported major,
// preferably one that needs no download.
type Options struct {
	Major        int      // 0: any
	Distribution bool     // only a build of the distribution, compiled for speed
	Settings     []string // name=value, for postgresql.conf; they win over the harness's
	Fsync        bool     // survive a loss of power as well; commits then cost what they cost in production
	Dir          string   // parent of the server's folder; "" is memory where there is enough, see child.Scratch

	Auth string   // AuthTrust or AuthScram
	TLS  bool     // demand TLS over TCP; Server.CAFile verifies it
	HBA  []string // the whole of pg_hba.conf instead; Standby and Close need `local all all trust` and `local replication all trust`

	Logger *slog.Logger // told about downloads; nil: nobody
}

// baseSettings make a server small, quick to start, and ready for logical
// replication. 1 MB segments (see initdb in template.go) let a test lose WAL
// after 8 MB of it. Dynamic shared memory is kept in the data folder: elsewhere a
// crashed server would leave it behind.
func baseSettings() []string {
	return []string{
		"wal_level=logical", "max_wal_senders=10", "max_replication_slots=10", "max_connections=50",
		"shared_buffers=32MB", "dynamic_shared_memory_type=mmap", "min_wal_size=2MB", "max_wal_size=1GB",
		"logging_collector=off", "log_timezone=UTC", "timezone=UTC", "jit=off",
	}
}

func (o *Options) settings() []string {
	s := baseSettings()
	if !o.Fsync {
		s = append(s, "fsync=off", "full_page_writes=off")
	}
	if o.Auth == AuthScram {
		s = append(s, "password_encryption=scram-sha-256")
	}
	return slices.Concat(s, o.Settings)
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}
