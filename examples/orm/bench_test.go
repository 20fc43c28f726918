package orm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// BenchmarkWrite compares a call of WritePgx with INSERTs by hand, one statement
// a message, in turns on one connection. x-plain is the time of the first
// divided by that of the second; payloads have 300 octets.
func BenchmarkWrite(b *testing.B) {
	for _, count := range []int{1, 100} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			d := open(b, 0, migrations.Names{})
			payload := json.RawMessage(`{"text":"` + strings.Repeat("a", 289) + `"}`)
			msgs := make([]outbox.Message, count)
			for i := range msgs {
				msgs[i] = outbox.Message{Topic: "orders", Key: outbox.Key("42"), Type: "OrderPaid", Payload: payload, Headers: outbox.Headers{"tenant": "acme"}}
			}
			write := func(tx pgx.Tx) error {
				_, err := outbox.WritePgx(b.Context(), tx, msgs...)
				return err
			}
			plain := func(tx pgx.Tx) error {
				for range msgs {
					if _, err := tx.Exec(b.Context(), "INSERT INTO outbox.events (topic, key, type, payload, headers) VALUES ($1, $2, $3, $4, $5)",
						"orders", "42", "OrderPaid", payload, `{"tenant":"acme"}`); err != nil {
						return err
					}
				}
				return nil
			}
			var took [2]time.Duration
			for b.Loop() {
				for i, run := range []func(pgx.Tx) error{write, plain} {
					began := time.Now()
					if err := pgx.BeginFunc(b.Context(), d.owner, run); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(began)
				}
			}
			b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "x-plain")
			b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "µs/write")
			b.ReportMetric(float64(took[1].Microseconds())/float64(b.N), "µs/plain")
		})
	}
}
