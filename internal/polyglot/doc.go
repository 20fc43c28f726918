// Package polyglot proves that the table is the contract: programs in other
// languages write the same events by plain INSERT, through an ORM, and by the SQL
// functions, and what arrives on Kafka is the same byte for byte, but for ids and
// what tells where an event was; and that they take each event once by the SQL of
// the inbox.
//
// It holds tests only. The programs are what an application would copy: see
// docs/producing.md and docs/consuming.md.
package polyglot
