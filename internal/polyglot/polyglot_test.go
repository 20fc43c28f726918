package polyglot_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/chaos"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// event is one of events.json. Payload is text of JSON, Bytes base64.
type event struct {
	Key         *string
	Type        *string
	Payload     *string
	Bytes       *string
	Headers     json.RawMessage
	Traceparent *string
	Context     json.RawMessage
}

func events(t *testing.T) (list []event) {
	t.Helper()
	text, err := os.ReadFile("events.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// record is what of a record does not depend on where its event was.
type record struct {
	Key, Value string
	HasKey     bool
	HasValue   bool
	Headers    []string
}

// Every language and way brings the same records as a plain INSERT from Go.
func TestEveryLanguageWritesTheSame(t *testing.T) {
	pg := postgres.Start(t, 17)
	cluster := kafka.Start(t, 1)
	db := postgres.Connect(t, pg.URL())
	script, err := migrations.Script(migrations.Names{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	exec1(t, db, script)
	list := events(t)
	startRelay(t, pg, cluster)
	for _, mode := range []string{"append", "stream"} {
		t.Run(mode, func(t *testing.T) {
			exec1(t, db, `SELECT outbox.set_mode($1)`, mode)
			reference := cluster.Topic(t, 1, nil)
			writeReference(t, db, reference, list)
			want := read(t, cluster, reference, len(list))
			for name, l := range map[string]struct {
				install func(context.Context) (toolchain, error)
				ways    []string
			}{
				"python": {python, []string{"insert", "publish", "sqlalchemy", "django"}},
				"node":   {node, []string{"insert", "publish", "knex"}},
				"java":   {java, []string{"insert", "publish"}},
				"jpa":    {hibernate, []string{"hibernate"}},
				"php":    {php, []string{"insert", "publish"}},
			} {
				for _, way := range l.ways {
					t.Run(name+" "+way, func(t *testing.T) {
						topic := cluster.Topic(t, 1, nil)
						tools := get(t, l.install)
						tools.run(t, way, pg.URL(), topic, list)
						if diff := cmp.Diff(want, read(t, cluster, topic, len(list))); diff != "" {
							t.Errorf("-a plain INSERT from Go +this:\n%s", diff)
						}
					})
				}
			}
		})
	}
}

func exec1(t *testing.T, db *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%.200s: %v", sql, err)
	}
}

func writeReference(t *testing.T, db *pgx.Conn, topic string, list []event) {
	t.Helper()
	for _, e := range list {
		var bytes []byte
		if e.Bytes != nil {
			var err error
			if bytes, err = base64.StdEncoding.DecodeString(*e.Bytes); err != nil {
				t.Fatal(err)
			}
		}
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
			for name, value := range e.settings() {
				if _, err := tx.Exec(t.Context(), `SELECT set_config($1, $2, true)`, name, value); err != nil {
					return err
				}
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO outbox.events (topic, key, type, payload, payload_bytes, headers) VALUES ($1, $2, $3, $4::text::json, $5, $6::text::jsonb)`,
				topic, e.Key, e.Type, e.Payload, bytes, nullable(e.Headers))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (e event) settings() map[string]string {
	s := map[string]string{}
	if e.Traceparent != nil {
		s["outbox.traceparent"] = *e.Traceparent
	}
	if e.Context != nil {
		s["outbox.headers"] = string(e.Context)
	}
	return s
}

func nullable(text json.RawMessage) *string {
	if text == nil {
		return nil
	}
	return new(string(text))
}

// run writes all events by one way of a language.
func (l *toolchain) run(t *testing.T, way, url, topic string, list []event) {
	t.Helper()
	file := "events.json"
	if strings.HasSuffix(l.file, ".java") { // whose library has no parser of JSON
		file = filepath.Join(t.TempDir(), "events.tsv")
		if err := os.WriteFile(file, []byte(lines(list)), 0o600); err != nil {
			t.Fatal(err)
		}
		url = jdbc(url)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l.start(ctx, t, append(slices.Clone(l.command), l.program(ctx, t), way, url, topic, file))
}

// jdbc is the URL as Java's driver wants it.
func jdbc(url string) string {
	return "jdbc:postgresql:" + strings.TrimPrefix(strings.Replace(url, "postgres@", "", 1), "postgres:") + "&user=postgres"
}

// program is the file of it, or the class that it was compiled to.
func (l *toolchain) program(ctx context.Context, t *testing.T) string {
	t.Helper()
	source := filepath.Join("programs", l.file)
	class, isJava := strings.CutSuffix(l.file, ".java")
	if !isJava {
		return source
	}
	dir := t.TempDir()
	l.start(ctx, t, []string{"javac", "-d", dir, source})
	l.environ = []string{l.environ[0] + string(os.PathListSeparator) + dir}
	return class
}

func (l *toolchain) start(ctx context.Context, t *testing.T, line []string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), l.environ...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
	}
}

// lines are the events for a program without JSON: fields in base64, "-" for null.
func lines(list []event) string {
	var b strings.Builder
	field := func(text *string) string {
		if text == nil {
			return "-"
		}
		return base64.StdEncoding.EncodeToString([]byte(*text))
	}
	for _, e := range list {
		bytes := "-"
		if e.Bytes != nil {
			bytes = *e.Bytes
		}
		fmt.Fprintln(&b, strings.Join([]string{
			field(e.Key), field(e.Type), field(e.Payload), bytes, field(nullable(e.Headers)), field(e.Traceparent), field(nullable(e.Context)),
		}, "\t"))
	}
	return b.String()
}

// startRelay runs the program until the test ends.
func startRelay(t *testing.T, pg *postgres.Server, cluster *kafka.Cluster) {
	t.Helper()
	binary, err := chaos.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	r := chaos.Relay{Binary: binary, Log: filepath.Join(t.TempDir(), "relay.log"), Env: []string{
		"OUTRIDER_DATABASE_URL=" + pg.URL(), "OUTRIDER_NAME=polyglot", "OUTRIDER_KAFKA_BROKERS=" + strings.Join(cluster.Brokers(), ","),
	}}
	p, err := r.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the relay's log:\n%s", p.LogTail(4000))
		}
		p.Kill()
	})
}

// read waits for n records of a topic of one partition.
func read(t *testing.T, cluster *kafka.Cluster, topic string, n int) (records []record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records came", len(records), n)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			own := record{Key: string(r.Key), Value: string(r.Value), HasKey: r.Key != nil, HasValue: r.Value != nil}
			for _, h := range r.Headers {
				if h.Key == "id" || strings.HasPrefix(h.Key, "outrider-") {
					continue
				}
				text := h.Key + "=" + string(h.Value)
				if h.Value == nil {
					text = h.Key + " is null"
				}
				own.Headers = append(own.Headers, text)
			}
			records = append(records, own)
		})
	}
	return records
}
