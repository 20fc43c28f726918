// Package relay is the engine: one replication slot in, [Sink.Publish] out,
// the confirmed LSN back.
//
// It promises that every committed row of the outbox table is published at
// least once, that first occurrences of one key come in commit order, that no
// row which was rolled back is ever published, and that the slot is never
// confirmed past a row that the sink has not made durable.
//
// It knows Postgres. It does not know what a sink is made of, and it does not
// know the library with which an application writes its rows: the contract
// between application and relay is the table.
//
// A row's way is one straight line: replication (bytes from the socket),
// pgoutput (bytes to values), layout (values to a [Message]), Publish. One
// goroutine walks it; see stream.go. What comes back from the sink goes into
// the ledger (ledger.go), which alone decides what may be confirmed.
package relay
