package chaos_test

import (
	cmplib "cmp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// What consumers see of transactions: the Java client and franz-go agree, record
// by record. With read_committed both leave out what was aborted and what is
// open; with read_uncommitted both bring it.
func TestJavaReaderAgrees(t *testing.T) {
	cluster := kafka.Start(t, 1)
	topic := cluster.Topic(t, 3, nil)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...), kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	send := func(how kgo.TransactionEndTry, ids ...byte) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			for _, r := range []*kgo.Record{record(id, "a"), record(id+100, ""), record(id+200, "заказ")} {
				if r.Topic = topic; id == 2 {
					r.Key, r.Value = nil, nil // neither key nor value
				}
				if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		ended(t, client, how)
	}
	send(kgo.TryCommit, 1, 2)
	send(kgo.TryAbort, 3, 4)
	send(kgo.TryCommit, 5)
	command, classPath := cluster.Java()
	for name, tc := range map[string]struct {
		committed bool
		records   int
	}{"read_committed": {true, 9}, "read_uncommitted": {false, 15}} {
		t.Run(name, func(t *testing.T) {
			read := func(java *chaos.Java) []chaos.Record {
				r := reading(t, chaos.ReaderConfig{Brokers: cluster.Brokers(), Topics: []string{topic}, ReadCommitted: tc.committed, Java: java})
				if err := r.CatchUp(t.Context()); err != nil {
					t.Fatal(err)
				}
				records := r.Records()
				slices.SortFunc(records, func(a, b chaos.Record) int {
					return cmplib.Or(cmplib.Compare(a.Partition, b.Partition), cmplib.Compare(a.Offset, b.Offset))
				})
				return records
			}
			ours, java := read(nil), read(&chaos.Java{Command: command, ClassPath: classPath})
			if len(ours) != tc.records {
				t.Errorf("franz-go brings %d records, want %d", len(ours), tc.records)
			}
			if diff := cmp.Diff(ours, java); diff != "" {
				t.Errorf("(-franz-go +java)\n%s", diff)
			}
		})
	}
}
