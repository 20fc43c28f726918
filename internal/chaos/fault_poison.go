package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// poisonFaults make Kafka refuse rows.
func poisonFaults() []Fault {
	return []Fault{
		{
			Name: "rows-refused", Description: "the topic's max.message.bytes is lowered under the relay; it halts at a row, the limit is raised, and it goes on by itself",
			strike: refuseRows,
		},
	}
}

// refusedAbove is what a batch may have in bytes while rows are refused: less
// than some rows of the workload, and more than most.
const refusedAbove = "3000"

func refuseRows(ctx context.Context, s *Stage) (string, error) {
	const setting = "max.message.bytes"
	if err := s.alterTopic(ctx, kadm.AlterConfig{Op: kadm.SetConfig, Name: setting, Value: new(refusedAbove)}); err != nil {
		return "", err
	}
	hint, err := s.says(ctx, s.Relays[0], "halted", "poison")
	dead := 0
	if err == nil {
		dead, err = ask[int](ctx, s, `SELECT count(*)::int FROM outbox.dead WHERE state = 'halted'`)
	}
	if err := errors.Join(err, s.alterTopic(ctx, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: setting})); err != nil {
		return "", err
	}
	s.Over()
	if dead != 1 {
		return "", fmt.Errorf("halted at %d rows: %s", dead, hint)
	}
	if s.flowing, err = s.Flow(ctx); err != nil {
		return "", err
	}
	return "halted at a row", s.until(ctx, "no row waits", func(ctx context.Context) (bool, error) {
		dead, err = ask[int](ctx, s, `SELECT count(*)::int FROM outbox.dead`)
		return dead == 0, err
	})
}

func (s *Stage) alterTopic(ctx context.Context, change kadm.AlterConfig) error {
	return s.admin(func(admin *kadm.Client) error {
		changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{change}, s.topic)
		if err != nil {
			return fmt.Errorf("alter topic %s: %w", s.topic, err)
		}
		for _, c := range changed {
			if c.Err != nil {
				return fmt.Errorf("alter topic %s: %w", s.topic, c.Err)
			}
		}
		return nil
	})
}
