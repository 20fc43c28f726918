// Package inboxtest puts package outbox/inbox to the test, by the consumer that
// is in package consumer: on real Postgres and real Kafka, with the relay that
// people deploy, while consumers and relay are killed, groups rebalance, the
// slot is lost, the primary changes, and records come again.
//
// It holds tests only.
package inboxtest
