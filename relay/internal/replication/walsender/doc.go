// Package walsender is test support: a fake of the server's side of a logical
// replication connection, over net.Pipe, so that it also works inside the
// bubbles of testing/synctest.
//
// It promises the handshake, answers to simple queries from a table, and then to
// send exactly the bytes it is told to, well-formed or not, without ever
// blocking the test; and to keep every status that arrives. It has no WAL, no
// slot and no opinion: that a real server behaves like it is for tests against
// real servers to show.
package walsender
