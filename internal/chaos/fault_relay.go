package chaos

import (
	"context"
	"fmt"
)

// relayFaults happen to the relay's own process.
func relayFaults() []Fault {
	return []Fault{
		{
			Name: "relay-killed", Description: "kill -9 of the relay with rows on their way; started again at once",
			strike: killRelay,
		},
		{
			Name: "relay-frozen", Description: "SIGSTOP of the leader with hundreds of rows in flight; another relay takes over; SIGCONT when all is quiet (counted from the SIGSTOP)",
			Relays: 2, strike: freezeRelay,
		},
		{
			Name: "two-relays", Description: "a second relay is started beside the first, which is then stopped or killed",
			strike: secondRelay,
		},
		{
			Name: "rolling-restart", Description: "three relays are restarted one after the other, the leader first",
			Relays: 3, strike: rollRelays,
		},
		{
			Name: "first-start", Description: "the first start of a relay on a table that holds rows, under traffic",
			Cold: true, Recovers: true, strike: startLate,
		},
	}
}

func killRelay(ctx context.Context, s *Stage) (string, error) {
	p := s.Relays[0]
	before, err := s.Walsender(ctx)
	if err != nil {
		return "", err
	}
	owed, err := s.FreezeOwing(ctx, p)
	if err != nil {
		return "", err
	}
	p.Kill()
	delivered := s.Reader.Distinct()
	s.Over()
	after, err := s.Launch(ctx, p, before)
	return fmt.Sprintf("%d rows committed and not on Kafka, %d delivered; walsender %d → %d", owed, delivered, before, after), err
}

// freezeRelay leaves the leader frozen until another one has published all there
// is, and thaws it when nobody writes any more: whatever it still sends would
// be the last record of its key for good. Under traffic the next row would hide it.
func freezeRelay(ctx context.Context, s *Stage) (string, error) {
	leader, other := s.leaderAndOther(ctx)
	if other == nil {
		return "", void("nobody leads")
	}
	before, err := s.Walsender(ctx)
	if err != nil {
		return "", err
	}
	held, err := s.FreezeHolding(ctx, leader, 100+s.Rand.IntN(400))
	if err != nil {
		return "", err
	}
	s.Over()
	after, err := s.Led(ctx, other, before)
	if err != nil {
		return "", err
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	if err := s.Arrived(ctx, 100+s.Rand.IntN(500)); err != nil {
		return "", err
	}
	if err := s.Quiet(ctx); err != nil {
		return "", err
	}
	if err := leader.Thaw(); err != nil {
		return "", err
	}
	evidence := fmt.Sprintf("%s frozen with %d rows in flight; walsender %d → %d", leader.Name, held, before, after)
	return evidence, s.plays(ctx, leader, "standby")
}

// leaderAndOther are the leader and a relay that waits; nil if nobody leads.
func (s *Stage) leaderAndOther(ctx context.Context) (leader, other *Player) {
	if leader = s.Leader(ctx); leader == nil {
		return nil, nil
	}
	for _, p := range s.Relays {
		if p != leader {
			return leader, p
		}
	}
	return leader, nil
}

func secondRelay(ctx context.Context, s *Stage) (string, error) {
	first, second := s.Relays[0], s.AddRelay()
	if err := second.Start(); err != nil {
		return "", err
	}
	if err := s.plays(ctx, second, "standby"); err != nil {
		return "", err
	}
	rows, before, err := s.InFlight(ctx, first)
	if err != nil {
		return "", err
	}
	how := "killed"
	if s.Rand.IntN(2) == 0 {
		first.Kill()
	} else {
		how = "stopped"
		if err := s.Stop(ctx, first); err != nil {
			return "", err
		}
	}
	s.Over()
	after, err := s.Led(ctx, second, before)
	return fmt.Sprintf("the first was %s with %d rows in flight; walsender %d → %d", how, rows, before, after), err
}

func rollRelays(ctx context.Context, s *Stage) (string, error) {
	before, err := ask[int](ctx, s, `SELECT epoch FROM outbox.relays WHERE slot = $1`, slotName)
	if err != nil {
		return "", err
	}
	first := s.Leader(ctx)
	if first == nil {
		return "", void("nobody leads")
	}
	order := []*Player{first}
	for _, p := range s.Relays {
		if p != first {
			order = append(order, p)
		}
	}
	for _, p := range order {
		if err := s.restart(ctx, p); err != nil {
			return "", err
		}
	}
	s.Over()
	if err := s.until(ctx, "somebody leads", func(ctx context.Context) (bool, error) { return s.Leader(ctx) != nil, nil }); err != nil {
		return "", err
	}
	after, err := ask[int](ctx, s, `SELECT epoch FROM outbox.relays WHERE slot = $1`, slotName)
	if err == nil && after == before {
		err = void("the leader has never changed")
	}
	return fmt.Sprintf("%d changes of the leader", after-before), err
}

// restart is what an orchestrator does in a rolling update: stop, start, wait
// until ready, and only then the next.
func (s *Stage) restart(ctx context.Context, p *Player) error {
	if err := s.Stop(ctx, p); err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	return s.until(ctx, p.Name+" has a role", func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, &endedError{p.Name, p.Err()}
		}
		status, err := p.Status(ctx)
		return status.Role == "leader" || status.Role == "standby", err
	})
}

// startLate has thousands of rows in the table before the first slot is made.
func startLate(ctx context.Context, s *Stage) (string, error) {
	if err := s.Committed(ctx, 3000+s.Rand.IntN(3000)); err != nil {
		return "", err
	}
	rows := s.Load.Committed()
	s.Over()
	_, err := s.Launch(ctx, s.Relays[0], 0)
	return fmt.Sprintf("%d rows in the table", rows), err
}
