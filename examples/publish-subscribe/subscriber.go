package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/examples/consumer"
	"github.com/outrider-cdc/outrider/outbox/inbox"
)

const subscriberTables = `CREATE TABLE seen (at bigint GENERATED ALWAYS AS IDENTITY, customer text, number bigint);`

// subscriber is main of a service that listens, under a name of its own: the
// name is the consumer group, which has a position in the topic of its own.
func subscriber(name string) error {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...),
		kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // who comes late reads what was
		kgo.InstanceID(name),                              // after a kill -9 the next process takes over at once, since it has the same name
	)
	if err != nil {
		return err
	}
	defer client.Close()
	c := consumer.Consumer{Client: client, DB: db, Inbox: inbox.Consumer{Name: name}, Effect: note}
	return c.Run(ctx)
}

// note is what this subscriber does about an order: it remembers it.
func note(ctx context.Context, tx pgx.Tx, r *kgo.Record) error {
	var o placed
	if err := json.Unmarshal(r.Value, &o); err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO seen (customer, number) VALUES ($1, $2)`, o.Customer, o.Number)
	return err
}
