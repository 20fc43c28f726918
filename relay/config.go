package relay

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/secret"
)

// Config is everything that the relay itself can be told. The composition root
// reads it from the environment; names are without the OUTRIDER_ prefix.
type Config struct {
	Name        string      `env:"NAME" doc:"Name of this relay, from which slot, client id and topics derive: lower-case letters, digits and underscores, 54 at most. Default: the name of the database."`
	DatabaseURL secret.Text `env:"DATABASE_URL" doc:"Where the outbox is: a libpq URL or keyword string, of the server itself and not of a pooler. Without it the PG* variables count."`
	Slot        string      `env:"SLOT" doc:"Replication slot. Slots are named per server, not per database. Default: outrider_<name>."`
	Publication string      `env:"PUBLICATION" envDefault:"outrider" doc:"Publication that holds the outbox table."`
	Table       string      `env:"TABLE" envDefault:"outbox.events" doc:"The outbox table, with its schema."`
	Schema      string      `env:"SCHEMA" envDefault:"outbox" doc:"Schema of the relay's own tables."`
	Instance    string      `env:"INSTANCE" doc:"Name of this process in the progress row and in pg_stat_activity. Default: <hostname>-<random>."`

	TopicPrefix   string            `env:"TOPIC_PREFIX" doc:"Put before every topic."`
	TopicMap      map[string]string `env:"TOPIC_MAP" doc:"Topics to rename before the prefix is put: from:to,from:to."`
	TopicDefault  string            `env:"TOPIC_DEFAULT" doc:"Topic of rows that name none (the table made by migrate always has one)."`
	TopicsAllowed []string          `env:"TOPICS_ALLOWED" doc:"Topics that rows may go to, as Kafka knows them (after map and prefix), separated by commas; a * at the end stands for anything. A row for another one is treated as POISON says. Default: all. The topic of dead letters need not be listed."`

	ColumnID           string `env:"COLUMN_ID" envDefault:"id" doc:"Another name of the column id, where it was renamed. Rows written before are still read under the old one."`
	ColumnTopic        string `env:"COLUMN_TOPIC" envDefault:"topic" doc:"The same for topic."`
	ColumnKey          string `env:"COLUMN_KEY" envDefault:"key" doc:"The same for key."`
	ColumnType         string `env:"COLUMN_TYPE" envDefault:"type" doc:"The same for type."`
	ColumnPayload      string `env:"COLUMN_PAYLOAD" envDefault:"payload" doc:"The same for payload."`
	ColumnPayloadBytes string `env:"COLUMN_PAYLOAD_BYTES" envDefault:"payload_bytes" doc:"The same for payload_bytes."`
	ColumnHeaders      string `env:"COLUMN_HEADERS" envDefault:"headers" doc:"The same for headers."`

	MaxInFlightBytes ByteSize      `env:"MAX_IN_FLIGHT_BYTES" envDefault:"64MiB" doc:"Bytes read from the slot and not yet acknowledged by the sink, 512 a message included; when they are used up the relay stops reading."`
	WALSenderTimeout time.Duration `env:"WAL_SENDER_TIMEOUT" envDefault:"15s" doc:"After this silence either side of the replication connection takes the other for dead (wal_sender_timeout of the session)."`
	ShutdownTimeout  time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"10s" doc:"How long a stop waits for what the sink still holds. Keep it below the grace period of the container."`
	YieldAfter       time.Duration `env:"YIELD_AFTER" envDefault:"60s" doc:"How long the sink may acknowledge nothing, although rows wait, before a standby that reaches it is let ahead. 0: never."`
	MaxAhead         int           `env:"MAX_AHEAD" envDefault:"1000000" doc:"Rows delivered past one that the sink does not acknowledge, after which the relay stops reading: a crash would send them again. 0: no limit."`
	Delivery         string        `env:"DELIVERY" envDefault:"at-least-once" doc:"at-least-once, or exactly-once: into Kafka, for read_committed readers, by transactions."`
	Poison           string        `env:"POISON" envDefault:"halt" doc:"What becomes of a row that the sink refuses for good, once it is kept in the table dead: halt (wait for an answer), dead-letter (to the topic of dead letters instead) or skip."`
	DeadLetterTopic  string        `env:"DEAD_LETTER_TOPIC" doc:"Topic of dead letters, as it is: no prefix is put. Default: outrider.<name>.dead-letter."`
	Gate             string        `env:"GATE" envDefault:"none" doc:"visible: publish a row only when other database sessions can read it, so that a consumer who looks finds it. none: as soon as it is decoded, which is a moment earlier, and longer where commits wait for a synchronous standby."`
	Retention        time.Duration `env:"RETENTION" envDefault:"24h" doc:"How long published rows stay in the table; they are what a lost slot is recovered from. 0: for ever."`
	Recovery         string        `env:"RECOVERY" envDefault:"recover" doc:"What to do when the slot was lost, dropped or moved and the table keeps its rows: recover (publish again what may be unpublished) or halt."`
	AcceptGap        string        `env:"ACCEPT_GAP" doc:"Token that a halted relay has printed: go on although rows may never be published."`
	AcceptIdentity   string        `env:"ACCEPT_IDENTITY" doc:"Token and choice that a halted relay has printed, for a database that was restored, moved or upgraded: <token>:republish, <token>:trust-xids or <token>:none."`
	AdoptSlot        string        `env:"ADOPT_SLOT" doc:"What to do with a slot that another tool has made: stream (all before it is published) or backfill (drop it, make another, publish what stands in the table)."`
	TableKeepsRows   bool          `env:"TABLE_KEEPS_ROWS" envDefault:"false" doc:"Says that nobody but the relay deletes rows of a table that migrate did not make, so that a lost slot can be recovered from it."`
	AllowSync        bool          `env:"ALLOW_SYNC" envDefault:"false" doc:"Go on although synchronous_standby_names matches the relay, so that commits wait for its confirmation."`
	ExitOnHalt       bool          `env:"EXIT_ON_HALT" envDefault:"false" doc:"Leave with exit code 1 (operator) or 3 (poison) instead of staying alive as halted."`
}

var (
	nameRule       = regexp.MustCompile(`^[a-z0-9_]{1,54}$`)
	slotRule       = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	notInName      = regexp.MustCompile(`[^a-z0-9_]+`)
	topicRule      = regexp.MustCompile(`^[a-zA-Z0-9._-]{0,249}$`)
	errDatabaseURL = errors.New("OUTRIDER_DATABASE_URL cannot be parsed as a libpq URL or keyword string")
)

// Resolve fills in what derives from other values: names from the database's
// name, the instance from the host. It reads DATABASE_URL but does not connect.
func (c Config) Resolve() (Config, error) {
	var errs []error
	database, err := c.databaseName()
	if err != nil {
		errs = append(errs, err)
	}
	if c.Name == "" {
		c.Name = database
		if err == nil && !nameRule.MatchString(c.Name) {
			errs = append(errs, fmt.Errorf("the name of database %q cannot name a slot: set OUTRIDER_NAME=%s", c.Name, suggestName(c.Name)))
			c.Name = suggestName(c.Name)
		}
	}
	if c.Slot == "" {
		c.Slot = "outrider_" + c.Name
	}
	if c.Instance == "" {
		c.Instance = defaultInstance()
	}
	if c.DeadLetterTopic == "" {
		c.DeadLetterTopic = "outrider." + c.Name + ".dead-letter"
	}
	return c, errors.Join(append(errs, c.Validate())...)
}

// Validate reports everything that is wrong with c, all at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Name == "" || nameRule.MatchString(c.Name), "OUTRIDER_NAME=%q: only a-z, 0-9 and _, 54 at most; %s would do", c.Name, suggestName(c.Name))
	bad(c.Slot == "" || slotRule.MatchString(c.Slot), "OUTRIDER_SLOT=%q: a slot is named by a-z, 0-9 and _, 63 at most", c.Slot)
	bad(c.Publication != "", "OUTRIDER_PUBLICATION is empty; the migration makes %q", "outrider")
	bad(c.Schema != "", "OUTRIDER_SCHEMA is empty; the migration makes %q", "outbox")
	_, _, ok := splitTable(c.Table)
	bad(ok, "OUTRIDER_TABLE=%q: write schema.table", c.Table)
	bad(topicRule.MatchString(c.TopicPrefix), "OUTRIDER_TOPIC_PREFIX=%q: Kafka allows a-z, A-Z, 0-9, '.', '_' and '-' in a topic", c.TopicPrefix)
	for _, allowed := range c.TopicsAllowed {
		name, any := strings.CutSuffix(allowed, "*")
		bad(topicRule.MatchString(name) && (any || name != ""), "OUTRIDER_TOPICS_ALLOWED: %q: names of topics, each of which may end in one *", allowed)
	}
	bad(topicRule.MatchString(c.TopicDefault), "OUTRIDER_TOPIC_DEFAULT=%q: Kafka allows a-z, A-Z, 0-9, '.', '_' and '-' in a topic", c.TopicDefault)
	bad(c.MaxInFlightBytes >= 1<<20, "OUTRIDER_MAX_IN_FLIGHT_BYTES=%s: 1MiB (a largest row) at least", c.MaxInFlightBytes)
	bad(c.WALSenderTimeout >= time.Second, "OUTRIDER_WAL_SENDER_TIMEOUT=%s: 1s at least", c.WALSenderTimeout)
	bad(c.Delivery == "" || c.Delivery == AtLeastOnce || c.Delivery == ExactlyOnce, "OUTRIDER_DELIVERY=%q: must be %s or %s", c.Delivery, AtLeastOnce, ExactlyOnce)
	bad(c.Poison == "" || c.Poison == PoisonHalt || c.Poison == PoisonDeadLetter || c.Poison == PoisonSkip, "OUTRIDER_POISON=%q: %s, %s or %s", c.Poison, PoisonHalt, PoisonDeadLetter, PoisonSkip)
	bad(topicRule.MatchString(c.DeadLetterTopic), "OUTRIDER_DEAD_LETTER_TOPIC=%q: Kafka allows a-z, A-Z, 0-9, '.', '_' and '-' in a topic", c.DeadLetterTopic)
	bad(c.Gate == "" || c.Gate == GateNone || c.Gate == GateVisible, "OUTRIDER_GATE=%q: %s or %s", c.Gate, GateNone, GateVisible)
	bad(c.Gate != GateVisible || !c.AllowSync, "OUTRIDER_GATE=%s and OUTRIDER_ALLOW_SYNC=true: commits would wait for the relay, and the relay for the commits", GateVisible)
	bad(c.MaxAhead >= 0, "OUTRIDER_MAX_AHEAD=%d: must not be negative", c.MaxAhead)
	bad(c.YieldAfter >= 0, "OUTRIDER_YIELD_AFTER=%s: must not be negative", c.YieldAfter)
	bad(c.Retention >= 0, "OUTRIDER_RETENTION=%s: must not be negative", c.Retention)
	bad(c.Recovery == "" || c.Recovery == "recover" || c.Recovery == "halt", "OUTRIDER_RECOVERY=%q: recover or halt", c.Recovery)
	bad(c.AdoptSlot == "" || c.AdoptSlot == "stream" || c.AdoptSlot == "backfill", "OUTRIDER_ADOPT_SLOT=%q: stream or backfill", c.AdoptSlot)
	bad(c.ShutdownTimeout > 0, "OUTRIDER_SHUTDOWN_TIMEOUT=%s: must be above 0", c.ShutdownTimeout)
	return errors.Join(errs...)
}

func (c Config) columns() [fieldCount]string {
	return [fieldCount]string{
		c.ColumnID, c.ColumnTopic, c.ColumnKey, c.ColumnType, c.ColumnPayload, c.ColumnPayloadBytes, c.ColumnHeaders,
	}
}

// databaseName is the database that DATABASE_URL or the PG* variables lead to.
func (c Config) databaseName() (string, error) {
	url, err := c.DatabaseURL.Reveal()
	if err != nil {
		return "", fmt.Errorf("OUTRIDER_DATABASE_URL: %w", err)
	}
	parsed, err := pgx.ParseConfig(url)
	if err != nil { // pgx repeats parts of the string in its error: not for a log
		return "", errDatabaseURL
	}
	if parsed.Database != "" {
		return parsed.Database, nil
	}
	return parsed.User, nil // as libpq does
}

func suggestName(from string) string {
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(from), "_"), "_")
	if name == "" {
		return "app"
	}
	return name[:min(len(name), 54)]
}

func splitTable(table string) (schema, name string, ok bool) {
	schema, name, ok = strings.Cut(table, ".")
	return schema, name, ok && schema != "" && name != "" && !strings.Contains(name, ".")
}

func defaultInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "relay"
	}
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return host + "-" + hex.EncodeToString(b)
}
