// Package outboxtest tells a test which messages a transaction has written,
// before it commits and without Kafka.
//
//	tx, err := db.Begin()
//	defer tx.Rollback()
//	err = shop.Pay(ctx, tx, 42) // the code under test
//	outboxtest.RequireWritten(t, tx, outboxtest.Match{Topic: "orders", Type: "OrderPaid"})
//
// [Written], [RequireWritten] and [RequireNothing] read the rows of an open
// transaction from the table; the role needs SELECT on it, which the owner has
// and an application's role has not. Those that end in Pgx do it for a pgx.Tx.
// A [Recorder] takes the place of a transaction in a test without a database.
//
// It promises that messages come in the order in which they were written, those
// of other transactions never. It does not show what package outbox did not get
// to write: use a mode of the outbox that keeps rows (append).
package outboxtest
