package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outrider-cdc/outrider/outbox"
)

const (
	topic = "orders"

	shopTables = `CREATE TABLE orders (customer text, number bigint, cents bigint NOT NULL, PRIMARY KEY (customer, number));`
)

// placed is what the shop tells whoever wants to know. It knows nobody of them.
type placed struct {
	Customer string `json:"customer"`
	Number   int64  `json:"number"`
	Cents    int64  `json:"cents"`
}

// shop is main of the service that publishes: POST /orders.
func shop() error {
	db, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var o placed
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := place(r.Context(), db, o); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	server := &http.Server{Addr: os.Getenv("LISTEN"), Handler: mux, ReadHeaderTimeout: time.Second}
	return fmt.Errorf("serve: %w", server.ListenAndServe())
}

func place(ctx context.Context, db *pgxpool.Pool, o placed) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO orders (customer, number, cents) VALUES ($1, $2, $3)`, o.Customer, o.Number, o.Cents); err != nil {
			return err
		}
		_, err := outbox.WritePgx(ctx, tx, outbox.Message{Topic: topic, Key: outbox.Key(o.Customer), Type: "OrderPlaced", Payload: o})
		return err
	})
}
