// Package poisontest proves on real servers what the relay promises of rows that
// Kafka refuses: that the one that is refused is found among all that were sent
// with it, that it is kept whole in outbox.dead, that nothing else is lost,
// reordered or (exactly-once) repeated, and that neither an outage nor a missing
// permission is ever taken for a bad row. The tests look from outside: at the
// topics, as readers of committed and of all records see them, and at the tables.
//
// It holds tests only, and does not promise anything to other packages. That the
// search is right for any refusal, in whatever order, is shown beside the code,
// in package relay.
package poisontest
