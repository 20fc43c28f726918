// Package kafka runs private Kafka clusters of one or three nodes (KRaft, each
// broker and controller at once) on loopback, for tests, the demo and benchmarks.
//
// It promises that a cluster is real Kafka, formatted by Kafka's own tool so
// that it has every feature of its version, and gone when we are: also after a
// SIGKILL of ours (on Linux), and without a file left but the cache. Nodes can
// be killed, stopped, frozen and started again on their data.
//
// It does not promise Kafka's own timing: unless [Options] say otherwise, nodes
// are tuned to start quickly (about 3 s from nothing) and to notice the death
// of a neighbour within 3 s.
//
// It needs Java (17, or 11 for 3.9). The jars come from, in this order: the
// folder that TEST_KAFKA names, the cache, Maven. TEST_KAFKA may also be the
// bootstrap list of a cluster that runs already: it can do all that a client
// can see, but what would touch its processes returns [ErrShared].
//
// Where no real broker is needed, kfake of franz-go starts within a millisecond;
// the tests here show how it is stopped and started again on its data.
package kafka
