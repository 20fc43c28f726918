// Package outbox writes events into the transactional outbox of Outrider: rows
// that a relay publishes to Kafka after the transaction has committed, and only
// then.
//
//	ids, err := outbox.Write(ctx, tx, outbox.Message{
//		Topic:   "orders",
//		Key:     outbox.Key("42"),
//		Type:    "OrderPaid",
//		Payload: order, // as JSON
//	})
//
// tx is the transaction of the business change: a *sql.Tx, or whatever wraps
// one (sqlx, ent, gorm's ConnPool, the DBTX of sqlc). [WritePgx] takes a pgx.Tx.
// A [Writer] has options.
//
// It promises that all messages of a call are written in one round trip (up to
// 64 MiB together), in the order of the arguments, and that payloads stay as
// they are, byte for byte. What the table would refuse is refused before the
// round trip, with an [*Error] that names message and field, so that the
// transaction can go on. What cannot be seen to be a transaction is asked for
// one, and refused with [ErrNoTransaction].
//
// It does not begin, commit or retry anything, logs nothing, starts no
// goroutine, and needs nothing but INSERT on the table. It imports the standard
// library only, so that importing it raises no version of yours. It does not
// make the table: migrations lie in package migrations. Package outboxtest
// tells a test what was written.
//
// The contract between an application and the relay is the table, not this
// package: a plain INSERT does the same.
package outbox
