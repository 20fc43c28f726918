package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/outbox"
)

// order is what a client asks for, and what the event says.
type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

// shop is the service. Its endpoint takes an order in one of three ways.
type shop struct {
	db    *pgxpool.Pool
	kafka *kgo.Client
	die   func() // if the request says so: the process ends, as by a power cut
}

// The ways, which are also the ends of their topics' names.
const (
	databaseFirst = "database-first"
	brokerFirst   = "broker-first"
	viaOutbox     = "outbox"
)

func topicOf(way string) string { return "orders." + way }

// databaseThenBroker loses the event if the process ends, or the broker is away, after the commit.
func (s *shop) databaseThenBroker(ctx context.Context, o order) error {
	if _, err := s.db.Exec(ctx, insert, o.ID, databaseFirst, o.Customer, o.Cents); err != nil {
		return err
	}
	s.die()
	return s.publish(ctx, databaseFirst, o)
}

// brokerThenDatabase tells the world of an order that does not exist, if the
// process ends, or the database refuses, after the broker's answer.
func (s *shop) brokerThenDatabase(ctx context.Context, o order) error {
	if err := s.publish(ctx, brokerFirst, o); err != nil {
		return err
	}
	s.die()
	_, err := s.db.Exec(ctx, insert, o.ID, brokerFirst, o.Customer, o.Cents)
	return err
}

// inOneTransaction writes the event beside the order. Outrider does the rest.
func (s *shop) inOneTransaction(ctx context.Context, o order) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insert, o.ID, viaOutbox, o.Customer, o.Cents); err != nil {
			return err
		}
		s.die()
		_, err := outbox.WritePgx(ctx, tx, outbox.Message{Topic: topicOf(viaOutbox), Key: outbox.Key(o.Customer), Type: "OrderPlaced", Payload: o})
		return err
	})
}

const insert = `INSERT INTO orders (id, way, customer, cents) VALUES ($1, $2, $3, $4)`

func (s *shop) publish(ctx context.Context, way string, o order) error {
	value, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.kafka.ProduceSync(ctx, &kgo.Record{Topic: topicOf(way), Key: []byte(o.Customer), Value: value}).FirstErr()
}

// ServeHTTP is POST /orders/{way}.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mine := *s
	mine.die = func() {
		if r.Header.Get("Die") != "" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it has struck
		}
	}
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ways := map[string]func(context.Context, order) error{
		databaseFirst: mine.databaseThenBroker, brokerFirst: mine.brokerThenDatabase, viaOutbox: mine.inOneTransaction,
	}
	take, ok := ways[r.PathValue("way")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if err := take(r.Context(), o); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// serve is main of the service.
func serve() error {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...),
		kgo.RecordDeliveryTimeout(time.Second)) // nobody waits longer at the till
	if err != nil {
		return err
	}
	defer client.Close()
	mux := http.NewServeMux()
	mux.Handle("POST /orders/{way}", &shop{db: db, kafka: client})
	server := &http.Server{Addr: os.Getenv("LISTEN"), Handler: mux, ReadHeaderTimeout: time.Second}
	return fmt.Errorf("serve: %w", server.ListenAndServe())
}
