// Package kafka publishes messages to Kafka with franz-go.
//
// It promises what [relay.Sink] asks for, at least once: a message settles nil
// only after all in-sync replicas have it; order per topic and key is kept
// through every retry; and after a record of a partition was refused nothing
// later of that partition settles nil until the next Begin, even if the broker
// took it. Brokers that do not answer are no error: messages wait, for ever,
// and so do messages whose topic does not exist. Both are reported.
//
// It does not promise exactly once, and it does not bound memory by itself:
// the caller's budget does, and the sink's own buffers are sized so that this
// budget is always reached first.
package kafka
