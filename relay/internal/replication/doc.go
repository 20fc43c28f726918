// Package replication is a logical replication connection: handshake and
// commands by pgx, then frames read in place from the socket, and status
// messages of our own.
//
// It promises that a dead peer is noticed within wal_sender_timeout, that a
// status carries exactly the positions it is given, and that no bytes a server
// may send make it panic or allocate what they merely announce. It decides
// nothing: what may be confirmed is the caller's to know, and it keeps no row.
//
// One goroutine owns a [Conn], reading and writing; only Interrupt may be
// called from others.
package replication
