package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

// Launch starts a relay and waits until the server feeds it, by another
// walsender than before, whose pid it returns.
func (s *Stage) Launch(ctx context.Context, p *Player, before int) (pid int, err error) {
	if err := p.Start(); err != nil {
		return 0, err
	}
	return s.Led(ctx, p, before)
}

// Led waits until a walsender other than before feeds a relay, and returns its
// pid. p is the one that is expected to live.
func (s *Stage) Led(ctx context.Context, p *Player, before int) (pid int, err error) {
	err = s.until(ctx, "the slot is in use", func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, &endedError{p.Name, p.Err()}
		}
		var err error
		pid, err = s.Walsender(ctx)
		return pid != 0 && pid != before, err
	})
	return pid, err
}

// Leads waits until p itself says that it leads.
func (s *Stage) Leads(ctx context.Context, p *Player) error {
	return s.plays(ctx, p, "leader")
}

func (s *Stage) plays(ctx context.Context, p *Player, role string) error {
	return s.until(ctx, p.Name+" is "+role, func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, &endedError{p.Name, p.Err()}
		}
		status, err := p.Status(ctx)
		if err == nil && status.Role != role {
			err = fmt.Errorf("%s is %s %s", p.Name, status.Role, status.Reason)
		}
		return err == nil, err
	})
}

// Leader is the relay that says it leads, nil if none does now.
func (s *Stage) Leader(ctx context.Context) *Player {
	for _, p := range s.Relays {
		if p.Process == nil || !p.Running() {
			continue
		}
		if status, err := p.Status(ctx); err == nil && status.Role == "leader" {
			return p
		}
	}
	return nil
}

// Walsender is the pid of the server process that has the slot, 0 if none has.
func (s *Stage) Walsender(ctx context.Context) (int, error) {
	return ask[int](ctx, s, `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, s.slot())
}

// Owed freezes p and returns how many rows are committed and not on Kafka: what
// it has in hand, or has not read yet. The caller thaws or kills p.
func (s *Stage) Owed(ctx context.Context, p *Player) (int, error) {
	if err := p.Freeze(ctx); err != nil {
		return 0, err
	}
	return s.backlog(ctx)
}

// backlog is how many rows are known to be committed and are not on Kafka.
func (s *Stage) backlog(ctx context.Context) (int, error) {
	committed := s.Load.Committed()
	if err := s.Reader.CatchUp(ctx); err != nil {
		return 0, err
	}
	return committed - s.Reader.Distinct(), nil
}

// FreezeOwing freezes p at a moment when rows are committed and not on Kafka,
// and returns how many.
func (s *Stage) FreezeOwing(ctx context.Context, p *Player) (owed int, err error) {
	err = s.until(ctx, "rows are on their way", func(ctx context.Context) (bool, error) {
		var err error
		if owed, err = s.Owed(ctx, p); err != nil || owed > 0 {
			return err == nil, err
		}
		return false, p.Thaw()
	})
	return owed, err
}

// FreezeHolding freezes p while it holds at least n rows that Kafka does not
// have: the way to Kafka is blocked until they have piled up, and free again
// when p stands still. What p had sent by then arrives; the rest it would send
// when it goes on.
func (s *Stage) FreezeHolding(ctx context.Context, p *Player, n int) (held int, err error) {
	s.eachLink(func(link *proxy.Proxy) { link.Stall(proxy.Up) })
	defer s.eachLink((*proxy.Proxy).Pass)
	err = s.until(ctx, "the relay holds rows", func(ctx context.Context) (bool, error) {
		status, err := p.Status(ctx)
		held = int(status.InFlightRows)
		return held >= n, err
	})
	if err != nil {
		return 0, err
	}
	return held, p.Freeze(ctx)
}

// eachLink does something to all links between relays and Kafka.
func (s *Stage) eachLink(f func(*proxy.Proxy)) {
	for _, link := range s.cfg.Links {
		f(link)
	}
}

// InFlight waits until p has handed rows to Kafka that are not acknowledged,
// while a walsender feeds it. It returns how many, and the walsender's pid.
func (s *Stage) InFlight(ctx context.Context, p *Player) (rows, walsender int, err error) {
	err = s.until(ctx, "rows are in flight", func(ctx context.Context) (bool, error) {
		status, err := p.Status(ctx)
		if err != nil || status.InFlightRows == 0 {
			return false, err
		}
		rows = int(status.InFlightRows)
		walsender, err = s.Walsender(ctx)
		return walsender != 0, err
	})
	return rows, walsender, err
}

// Arrived waits until n more rows are on Kafka than are now.
func (s *Stage) Arrived(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Step, fmt.Errorf("not within %s", s.cfg.Step))
	defer cancel()
	target := s.Reader.Distinct() + n
	if err := s.Reader.WaitRows(ctx, target); err != nil {
		return fmt.Errorf("wait for %d rows on Kafka, %d are there: %w", target, s.Reader.Distinct(), err)
	}
	return nil
}

// Committed waits until n more rows are committed than are now.
func (s *Stage) Committed(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Step, fmt.Errorf("not within %s", s.cfg.Step))
	defer cancel()
	return s.Load.WaitCommitted(ctx, s.Load.Committed()+n)
}

// Stop ends p in order. It must leave with 0.
func (s *Stage) Stop(ctx context.Context, p *Player) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Step, fmt.Errorf("not within %s", s.cfg.Step))
	defer cancel()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := p.Wait(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if code != 0 {
		return fmt.Errorf("%s ended with exit code %d, not 0", p.Name, code)
	}
	return nil
}

// stopAll ends all relays that run, and looks for data races in what they said.
func (s *Stage) stopAll(ctx context.Context) error {
	var errs []error
	for _, p := range s.Relays {
		if p.Process != nil && p.Running() {
			errs = append(errs, p.Thaw(), s.Stop(ctx, p)) // frozen still, where a fault went wrong
		}
		log, err := os.ReadFile(p.Relay.Log)
		if err == nil && strings.Contains(string(log), "DATA RACE") {
			errs = append(errs, fmt.Errorf("%s has a data race", p.Name))
		}
	}
	return errors.Join(errs...)
}
