package polyglot_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// What docs/consuming.md shows takes each event once in every language: those that
// come twice, those of a dead letter, and all of them read again from the start.
func TestEveryLanguageTakesOnce(t *testing.T) {
	pg := postgres.Start(t, 17)
	cluster := kafka.Start(t, 1)
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	for name, install := range map[string]func(context.Context) (toolchain, error){
		"python": python, "node": node, "java": javaConsumer,
	} {
		t.Run(name, func(t *testing.T) {
			tools := get(t, install)
			tools.file = strings.Replace(tools.file, "producer", "consumer", 1)
			_, url := pg.NewDatabase(t)
			db := postgres.Connect(t, url)
			exec1(t, db, script)
			exec1(t, db, `CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, value text NOT NULL)`)
			topic := cluster.Topic(t, 1, nil)
			admin := produce(t, cluster, topic, "one", "two", "one", "three dead", "two", "three dead", "four")
			const records = 7
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			program, at := tools.program(ctx, t), url
			if strings.HasSuffix(tools.file, ".java") {
				at = jdbc(url)
			}
			for _, group := range []string{"first", "again"} {
				group = name + "-" + group
				tools.start(ctx, t, append(append([]string{}, tools.command...), program, at, strings.Join(cluster.Brokers(), ","), topic, group, "7"))
				offsets, err := admin.FetchOffsets(ctx, group)
				if err != nil {
					t.Fatal(err)
				}
				if at, _ := offsets.Lookup(topic, 0); at.At != records {
					t.Errorf("group %s is at %d of %d", group, at.At, records)
				}
				var got string
				if err := db.QueryRow(ctx, `SELECT string_agg(value, ', ' ORDER BY n) FROM effects`).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff("one, two, three dead, four", got); diff != "" {
					t.Errorf("effects after group %s: %s", group, diff)
				}
			}
			var kept int
			if err := db.QueryRow(ctx, `SELECT count(*) FROM outbox.inbox WHERE received_at = 'infinity'`).Scan(&kept); err != nil || kept != 1 {
				t.Errorf("%d ids are kept for ever, want that of the dead letter (%v)", kept, err)
			}
		})
	}
}

// produce writes a record a value, whose id the value is, too.
func produce(t *testing.T, cluster *kafka.Cluster, topic string, values ...string) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for _, value := range values {
		headers := []kgo.RecordHeader{{Key: "id", Value: []byte(value)}}
		if strings.HasSuffix(value, "dead") {
			headers = append(headers, kgo.RecordHeader{Key: "outrider-dead-topic", Value: []byte("orders")})
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte(value), Headers: headers}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return kadm.NewClient(client)
}
