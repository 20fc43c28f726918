// Package inbox lets a consumer of Outrider's records have each event's effect
// once: it notes the event in the transaction of the effect, in the consumer's
// own Postgres, and tells whether it was noted before.
//
// There are two ways, behind the SQL functions of the same names:
//
//   - [Once] goes by the header id: one row an event, kept for a retention.
//   - [Newer] goes by the position of the record: one row a partition and source
//     that is updated in place, and the ids of the last days, many to a row.
//
// Both take the caller's transaction and write nothing anywhere else: the effect
// and the note commit together or not at all. Commit the offset to Kafka after
// the transaction; a crash in between brings the record again, and it is dropped.
//
// # What it promises
//
// Among the events whose ids are remembered, each is answered true in exactly
// one committed transaction of a consumer, and a record that was never answered
// true is not answered false. With [Once] that holds whatever the order, the
// partition and the number of workers, until [Purge] forgets the id. With
// [Newer] records of a partition must be handed over in the order of their
// offsets, and none be passed over: a record that failed holds up those behind
// it in its partition, or is put aside in the same transaction.
//
// # Why Newer is sound
//
// An event is dropped for one of two reasons.
//
// Its id is remembered. Ids are unique, and an id is remembered in the
// transaction that answered true: that is exact. It does not matter where the
// event comes from: a new generation of the relay after a recovery, another
// timeline after a failover, a zombie of the old source, a second service on the
// topic, a dead letter that was retried, or a key that lies in another partition
// since partitions were added. So no fall-back has to begin or end: for as long
// as ids are remembered, they decide.
//
// Or ids do not reach back to it, and its position is not above the highest one
// seen of its source in its partition. Reach is judged by the commit time of the
// record: an event that was taken was received after its commit, and ids that
// were received before a point in time are the ones that are forgotten. (Clocks
// of the two databases may differ by an hour.) Such a record is an old one: of a
// replay of the topic, or of a relay that starts again where it had confirmed.
// Under one source a position names one row for ever, and the relay sends the
// records of one key, hence of one partition, in the order of positions, and
// after a restart all that is not confirmed, again in order. So what lies at or
// below the highest position of a partition has been there before.
//
// Everything else is taken, and its id remembered. Beyond the reach of ids that
// is right under a known source, since a higher position is another row, and the
// one case in which an event can be repeated is an event older than that under a
// source that is new. Recovery and republishing read the outbox table, so
// nothing older than its retention comes that way: keep ids for longer than
// that, and than the longest time for which a partition of the topic was stuck.
//
// Where positions say nothing, ids alone decide, one row an event as with
// [Once]: records without a key, which a restart may put into any partition;
// dead letters, which come from all partitions; records without the headers; and
// ids that are not UUIDs of version 7, because chunks of ids are found by the
// time in them.
//
// Who works on a partition holds the row of its source until the end of the
// transaction. A member of the group that has not noticed that its partition was
// given away waits there, and then finds that the record was taken. A dead letter
// is taken while no other record of the consumer is: its event may have been
// retried, and be in the hands of another member.
//
// # What it does not promise
//
// Effects outside of the transaction, such as mails, are not covered. Two
// consumers that hold the same event in different partitions at the same moment,
// both before commit, may both take it with [Newer], if the event was in neither
// before: it needs partitions to be added and the relay to be killed within that
// moment. Add partitions while the relay is stopped and nothing is unread, or
// use [Once] there. This package never reads Kafka and never commits offsets.
package inbox
