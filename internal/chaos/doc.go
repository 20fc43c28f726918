// Package chaos judges a running relay from outside: it writes rows whose fate
// and order it knows, reads what arrived on Kafka, and says what is wrong.
//
// Three rooms that know nothing of each other: [Workload] writes to Postgres
// the way applications do and keeps a journal, [Reader] reads topics to their
// end, and [Verify], which does no I/O, compares the two. [Process] runs the
// real relay binary and does it harm.
//
// A row's place in the commit order of its key is a counter that is incremented
// under the lock of a business row. Postgres holds that lock until the
// transaction has ended, so the order of the counter is the order of the
// commits, and no clock and no position of the relay has to be believed.
//
// The package promises that a report without findings means what the relay
// promises; it does not promise that a run did any harm. The evidence for that
// (rows in flight at a kill, writers that met on a key) is the run's to show.
package chaos
