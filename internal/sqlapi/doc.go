// Package sqlapi proves, on every major of Postgres, what the SQL functions of
// the outbox promise to applications: what a call writes, what it refuses and
// with which words, and what each role may do.
//
// It holds tests only. That the rows then arrive on Kafka is shown where a relay
// runs, in package relay and in internal/chaos.
package sqlapi
