package chaos

import (
	"context"
	"fmt"
	"slices"

	"github.com/outrider-cdc/outrider/relay"
)

// relayFaults happen to the relay's own process.
func relayFaults() []Fault {
	return []Fault{
		{
			Name: "relay-killed", Description: "kill -9 of the relay with rows on their way; started again at once",
			strike: killRelay,
		},
		{
			Name: "rolling-restart", Description: "ten relays are restarted one after the other, the leader first",
			Relays: 10, strike: rollRelays,
		},
		{
			Name: "delivery-changed", Description: "ten relays are restarted one after the other with the other delivery, and then with the former one",
			Relays: 10, Repeats: true, strike: changeDelivery,
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

func rollRelays(ctx context.Context, s *Stage) (string, error) {
	before, err := ask[int](ctx, s, `SELECT epoch FROM outbox.relays WHERE slot = $1`, s.slot())
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
	after, err := ask[int](ctx, s, `SELECT epoch FROM outbox.relays WHERE slot = $1`, s.slot())
	if err == nil && after == before {
		err = void("the leader has never changed")
	}
	return fmt.Sprintf("%d changes of the leader", after-before), err
}

// changeDelivery is a rolling update from one delivery to the other and back.
// While it is under way relays of both kinds stand by, and whichever leads
// decides: generations count the changes, not the relays.
func changeDelivery(ctx context.Context, s *Stage) (string, error) {
	before, err := s.generation(ctx)
	if err != nil {
		return "", err
	}
	changes := []string{relay.ExactlyOnce, relay.AtLeastOnce}
	if s.exactlyOnce() {
		slices.Reverse(changes)
	}
	for _, delivery := range changes {
		for _, p := range s.Relays {
			p.Relay.Env = append(p.Relay.Env, "OUTRIDER_DELIVERY="+delivery)
			if err := s.restart(ctx, p); err != nil {
				return "", err
			}
		}
		if err := s.until(ctx, "somebody leads by "+delivery, func(ctx context.Context) (bool, error) {
			now, err := ask[string](ctx, s, `SELECT delivery FROM outbox.relays WHERE slot = $1`, s.slot())
			return now == delivery && s.Leader(ctx) != nil, err
		}); err != nil {
			return "", err
		}
		if err := s.Arrived(ctx, 100+s.Rand.IntN(300)); err != nil {
			return "", err
		}
	}
	s.Over()
	after, err := s.generation(ctx)
	if err != nil {
		return "", err
	}
	if changed := after - before; changed < len(changes) || changed > 2*len(s.Relays) {
		return "", fmt.Errorf("generation %d → %d by %d restarts of ten relays", before, after, len(changes))
	}
	return fmt.Sprintf("%s, %s; generation %d → %d", changes[0], changes[1], before, after), nil
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
