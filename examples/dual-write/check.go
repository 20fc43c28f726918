package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/examples/lab"
)

// outcome is what became of the orders that were taken in one way.
type outcome struct {
	orders int // in the database
	events int // on Kafka, each once
	lost   int // orders without an event: nobody hears of them
	ghosts int // events without an order: everybody hears of what never was
}

func (o outcome) String() string {
	return fmt.Sprintf("%3d orders, %3d events, %3d lost, %3d ghosts", o.orders, o.events, o.lost, o.ghosts)
}

// compare looks at the database and at the topic, and asks nobody else.
func compare(ctx context.Context, l *lab.Lab, url, way string) (o outcome, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return o, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `SELECT id::text FROM orders WHERE way = $1`, way)
	if err != nil {
		return o, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return o, err
	}
	records, err := l.Read(ctx, topicOf(way))
	if err != nil {
		return o, err
	}
	events := map[string]bool{}
	for _, r := range records {
		var placed order
		if err := json.Unmarshal(r.Value, &placed); err != nil {
			return o, fmt.Errorf("an event of %s: %w", way, err)
		}
		events[placed.ID] = true
	}
	o.orders, o.events, o.ghosts = len(ids), len(events), len(events)
	for _, id := range ids {
		if events[id] {
			o.ghosts--
		} else {
			o.lost++
		}
	}
	return o, nil
}
