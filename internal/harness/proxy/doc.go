// Package proxy puts a TCP connection between a client and a server on
// loopback under a test's control: it can be slow, stall in one direction or
// both, or be cut.
//
// It promises that bytes arrive unchanged and in order, or not at all, and that
// a stalled connection stays open at both ends: neither side can tell it from a
// network that drops every packet. It does not delay the handshake of TCP:
// the proxy's own kernel answers it, also while stalled.
package proxy
