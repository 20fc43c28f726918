package chaos_test

import (
	cmplib "cmp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/librdkafka"
)

// What consumers see of transactions: franz-go, the Java client and librdkafka
// agree, record by record. With read_committed all leave out what was aborted and what is
// open; with read_uncommitted all bring it.
func TestOtherClientsAgree(t *testing.T) {
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
	python, path, err := librdkafka.Python(t.Context())
	if err != nil {
		harness.Missing(t, err)
	}
	for name, tc := range map[string]struct {
		committed bool
		records   int
	}{"read_committed": {true, 9}, "read_uncommitted": {false, 15}} {
		t.Run(name, func(t *testing.T) {
			read := func(client *chaos.Client) []chaos.Record {
				r := reading(t, chaos.ReaderConfig{Brokers: cluster.Brokers(), Topics: []string{topic}, ReadCommitted: tc.committed, Client: client})
				if err := r.CatchUp(t.Context()); err != nil {
					t.Fatal(err)
				}
				records := r.Records()
				slices.SortFunc(records, func(a, b chaos.Record) int {
					return cmplib.Or(cmplib.Compare(a.Partition, b.Partition), cmplib.Compare(a.Offset, b.Offset))
				})
				return records
			}
			ours := read(nil)
			if len(ours) != tc.records {
				t.Errorf("franz-go brings %d records, want %d", len(ours), tc.records)
			}
			for name, client := range map[string]*chaos.Client{"java": chaos.JavaClient(cluster.Java()), "librdkafka": chaos.LibrdkafkaClient(python, path)} {
				if diff := cmp.Diff(ours, read(client)); diff != "" {
					t.Errorf("(-franz-go +%s)\n%s", name, diff)
				}
			}
		})
	}
}
