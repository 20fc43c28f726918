// Package kafka publishes messages to Kafka with franz-go.
//
// It promises what [relay.Sink] asks for, at least once: a message settles nil
// only after all in-sync replicas have it; order per topic and key is kept
// through every retry; and after a record of a partition was refused nothing
// later of that partition settles nil until the next Begin, even if the broker
// took it. Brokers that do not answer are no error: messages wait, for ever,
// and so do messages whose topic does not exist. Both are reported.
//
// With [Options.ExactlyOnce] it writes in transactions, each with a checkpoint of
// what it covers in a topic of its own: readers of committed records see each
// message once, in order, also after crashes and with two relays at once, if the
// relay goes on behind the checkpoint that Begin returns. A message settles nil
// when its transaction is certain to be committed; readers see it when the
// brokers have written the markers, a few milliseconds later. No transaction is
// open while nothing is published or while messages wait for a topic. Readers of
// uncommitted records see what was aborted, and what replaced it.
//
// It does not bound memory by itself: the caller's budget does, and the sink's
// own buffers are sized so that this budget is always reached first.
package kafka
