package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Sampler looks at the slot again and again while a relay works.
type Sampler struct {
	DatabaseURL string
	Slot        string
	Reader      *Reader
	Every       time.Duration

	looking sync.Mutex
	paused  bool // guarded by looking
	mu      sync.Mutex
	samples []Sample
}

// Pause stops looking, for as long as somebody else than the relay moves the
// slot, and returns when nobody looks. Resume ends it.
func (s *Sampler) Pause() { s.pause(true) }

// Resume ends Pause.
func (s *Sampler) Resume() { s.pause(false) }

func (s *Sampler) pause(yes bool) {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.paused = yes
}

// Run takes samples until ctx has ended. Looks that fail are left out: the
// server may be down, which is what such runs are about.
func (s *Sampler) Run(ctx context.Context) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = conn.Close(closing)
		}
	}()
	for wait(ctx, s.Every) == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, s.DatabaseURL); err != nil {
				conn = nil
				continue
			}
		}
		sample, err := s.look(ctx, conn)
		if err == nil && sample != nil {
			s.mu.Lock()
			s.samples = append(s.samples, *sample)
			s.mu.Unlock()
		}
	}
}

// Samples returns what was seen so far.
func (s *Sampler) Samples() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.samples)
}

// look reads the three values one after another: see Sample. It returns nil
// unless the relay streams.
func (s *Sampler) look(ctx context.Context, conn *pgx.Conn) (*Sample, error) {
	s.looking.Lock()
	defer s.looking.Unlock()
	if s.paused {
		return nil, nil
	}
	var sample Sample
	var confirmed, durable string
	err := conn.QueryRow(ctx, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots
		WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL`, s.Slot).Scan(&confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the slot: %w", err)
	}
	err = conn.QueryRow(ctx, `SELECT confirmed_lsn::text, system_id || '.' || timeline FROM outbox.relays
		WHERE slot = $1 AND phase = 'streaming' AND confirmed_lsn IS NOT NULL`, s.Slot).Scan(&durable, &sample.Server)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the progress row: %w", err)
	}
	if sample.Confirmed, err = parseLSN(confirmed); err != nil {
		return nil, err
	}
	if sample.Durable, err = parseLSN(durable); err != nil {
		return nil, err
	}
	sample.Ends, err = s.Reader.LogEnds(ctx)
	return &sample, err
}

func parseLSN(s string) (uint64, error) {
	var high, low uint32
	if _, err := fmt.Sscanf(s, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("parse position %q: %w", s, err)
	}
	return uint64(high)<<32 | uint64(low), nil
}
