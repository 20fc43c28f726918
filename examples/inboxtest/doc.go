// Package inboxtest shows a consumer that has each event's effect once, and puts
// package outbox/inbox to the test with it: on real Postgres and real Kafka, with
// the relay that people deploy, while consumers and relay are killed, groups
// rebalance, the slot is lost, the primary changes, and records come again.
//
// consumer.go is the example: how a record of franz-go becomes one of the inbox,
// and where the transaction and the offset are committed. It promises that a
// batch is one transaction of the database, and that no record of a partition is
// passed over; it does not retry what fails for another reason than concurrency.
package inboxtest
