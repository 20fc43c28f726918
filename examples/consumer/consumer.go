// Package consumer is a member of a consumer group that has the effect of each
// record once, by the inbox in the database of its service. It is what
// docs/consuming.md shows, what the examples use, and what inboxtest torments.
//
// It promises that a batch is one transaction of the database, and that no
// record of a partition is passed over; it does not retry what fails for another
// reason than concurrency.
package consumer

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/outbox/inbox"
)

// Record is what the inbox wants to know of a record of franz-go.
func Record(r *kgo.Record) inbox.Record {
	return inbox.Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key,
		Header: func(name string) ([]byte, bool) {
			for _, h := range r.Headers {
				if h.Key == name {
					return h.Value, true
				}
			}
			return nil, false
		},
	}
}

// Effect is what a service does about an event, in the transaction. An error
// undoes the whole batch.
type Effect func(ctx context.Context, tx pgx.Tx, r *kgo.Record) error

// Consumer has the effect of each record once. Its client is a member of a
// group, with kgo.DisableAutoCommit.
type Consumer struct {
	Client *kgo.Client
	DB     *pgx.Conn
	Inbox  inbox.Consumer
	ByID   bool // inbox.Once instead of inbox.Newer
	Effect Effect

	BeforeCommit, AfterCommit func() // moments for a test; nil: nothing
}

// Run consumes until ctx ends or something else fails; it returns why. A failure must end the member:
// its next poll would pass over the records of the batch that was undone. The
// process that takes over its partitions begins at the last committed offset.
func (c *Consumer) Run(ctx context.Context) error {
	for {
		fetches := c.Client.PollRecords(ctx, 100)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		records := fetches.Records()
		if err := c.batch(ctx, records); err != nil {
			return err
		}
		if c.AfterCommit != nil {
			c.AfterCommit()
		}
		// This fails if a partition was given away meanwhile: its new owner drops what we have taken.
		_ = c.Client.CommitRecords(ctx, records...)
	}
}

// batch is one transaction, tried again where Postgres asks for that.
func (c *Consumer) batch(ctx context.Context, records []*kgo.Record) error {
	for {
		err := pgx.BeginFunc(ctx, c.DB, func(tx pgx.Tx) error {
			first, err := c.take(ctx, tx, records)
			if err != nil {
				return err
			}
			for i, r := range records {
				if !first[i] {
					continue
				}
				if err := c.Effect(ctx, tx, r); err != nil {
					return fmt.Errorf("effect of record %s: %w", Record(r), err)
				}
			}
			if c.BeforeCommit != nil {
				c.BeforeCommit()
			}
			return nil
		})
		if err == nil || !again(err) {
			return err
		}
	}
}

func (c *Consumer) take(ctx context.Context, tx pgx.Tx, records []*kgo.Record) ([]bool, error) {
	given := make([]inbox.Record, len(records))
	for i, r := range records {
		given[i] = Record(r)
	}
	if !c.ByID {
		return inbox.NewerPgx(ctx, tx, c.Inbox, given...)
	}
	first := make([]bool, len(records))
	for i, r := range given {
		var err error
		if first[i], err = inbox.OncePgx(ctx, tx, c.Inbox, r); err != nil {
			return nil, err
		}
	}
	return first, nil
}

// again reports whether the transaction failed because of another one: a
// serialization failure, a deadlock, or the same event taken at the same moment.
func again(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (server.Code == "40001" || server.Code == "40P01" || server.Code == "23505" && server.ConstraintName == "inbox_chunks_pkey")
}
