package chaos

import (
	"context"
	"fmt"
)

// publicationFaults make the server leave rows out of the stream, with an error
// up to Postgres 17, and with no more than a notice from 18 on.
func publicationFaults() []Fault {
	return []Fault{
		{
			Name: "publication-dropped", Description: "the publication is dropped and made again under traffic",
			Repeats: true, strike: func(ctx context.Context, s *Stage) (string, error) {
				return s.unpublished(ctx, `DROP PUBLICATION outrider`,
					`CREATE PUBLICATION outrider FOR TABLE outbox.events %s WITH (publish = 'insert', publish_via_partition_root = true)`)
			},
		},
		{
			Name: "table-unpublished", Description: "the table is taken out of the publication and put back under traffic",
			Repeats: true, strike: func(ctx context.Context, s *Stage) (string, error) {
				return s.unpublished(ctx, `ALTER PUBLICATION outrider DROP TABLE outbox.events`,
					`ALTER PUBLICATION outrider ADD TABLE outbox.events %s`)
			},
		},
	}
}

// unpublished commits rows between two statements; %s in the second takes the
// columns, which can be listed from 15 on.
func (s *Stage) unpublished(ctx context.Context, without, with string) (string, error) {
	columns := "(id, topic, key, type, payload, payload_bytes, headers)"
	if s.server.Major() < 15 {
		columns = ""
	}
	if err := s.Exec(ctx, without); err != nil {
		return "", err
	}
	before := s.Load.Committed()
	if err := s.Committed(ctx, 100+s.Rand.IntN(1000)); err != nil {
		return "", err
	}
	published, err := ask[bool](ctx, s, `SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = 'outrider')`)
	if err != nil {
		return "", err
	}
	rows := s.Load.Committed() - before
	if err := s.Exec(ctx, fmt.Sprintf(with, columns)); err != nil {
		return "", err
	}
	s.Over()
	if published || rows == 0 {
		return "", void("published: %t, rows committed: %d", published, rows)
	}
	return fmt.Sprintf("%d rows committed while the table was in no publication", rows), nil
}
