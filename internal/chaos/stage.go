package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
)

// name is that of the relays. Slot, transactional id and topic of checkpoints
// derive from it: the servers of many stages are copies of one, so that nothing
// else tells apart what they left on Kafka.
func (s *Stage) name() string { return fmt.Sprintf("chaos_%x", s.cfg.Seed) }

func (s *Stage) slot() string { return "outrider_" + s.name() }

// StageConfig says what a stage is made of. Servers and links stay the caller's to close.
type StageConfig struct {
	Server    *postgres.Server
	Cluster   *kafka.Cluster
	Links     []*proxy.Proxy // before the cluster's nodes, in their order; none if relays connect directly
	Wire      *wire          // hears what passes the links; nil: nobody does
	Binary    string         // of the relay
	Dir       string         // where relays write their logs; it exists
	Seed      uint64
	Load      WorkloadConfig // the stage fills in DatabaseURL, Topics and Seed
	Budget    int            // bytes in flight
	Timeout   time.Duration  // OUTRIDER_WAL_SENDER_TIMEOUT
	Step      time.Duration  // how long any one thing may take before the run fails
	Patience  int            // see Arena
	Linked    bool           // relays reach Postgres through Postgres()
	Compacted bool           // the topic is compacted, as eagerly as Kafka can
	Moves     bool           // everybody reaches Postgres by an address that Move can turn to another server
	Log       *slog.Logger
	Delivery  string  // OUTRIDER_DELIVERY of the relays; exactly-once is read by read_committed readers
	Client    *Client // reads the topic; nil: franz-go
	Repeats   bool    // rows may come twice, also exactly-once
}

// Stage is one run: relays between real servers, writers before them and a
// reader behind. Its methods are for one goroutine.
type Stage struct {
	Load   *Workload
	Reader *Reader
	Rand   *rand.Rand // seeded: moments and choices of faults
	Relays []*Player

	cfg     StageConfig
	server  *postgres.Server // the primary
	url     string           // of Postgres, for everybody but relays
	relays  string           // of Postgres, for relays
	topic   string
	link    *proxy.Proxy // between relays and Postgres
	door    *door
	db      *pgx.Conn
	sampler *Sampler
	writing func() error // lets the writers end; nil before Write
	quiet   bool         // the writers have ended
	closing []func()
	over    time.Time // when the fault had done its harm; see Over
	flowing time.Duration
}

// OpenStage makes the outbox, a topic, the writers' table and a reader that
// reads. No relay runs yet and nobody writes. ctx bounds the whole run.
func OpenStage(ctx context.Context, cfg StageConfig) (*Stage, error) {
	s := &Stage{cfg: cfg, server: cfg.Server, Rand: rand.New(rand.NewPCG(cfg.Seed, 0))}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) open(ctx context.Context) error {
	if err := s.connectPostgres(); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.makeTopic(ctx); err != nil {
		return err
	}
	var err error
	s.Reader, err = NewReader(ReaderConfig{Brokers: s.cfg.Cluster.Direct(), Topics: []string{s.topic}, ReadCommitted: s.exactlyOnce(), Client: s.cfg.Client})
	if err != nil {
		return err
	}
	s.background(ctx, func(ctx context.Context) { _ = s.Reader.Run(ctx) }) // what it did not read is told as lost
	load := s.cfg.Load
	load.DatabaseURL, load.Topics, load.Seed = s.url, []string{s.topic}, s.cfg.Seed
	if s.Load, err = NewWorkload(load, s.cfg.Log); err != nil {
		return err
	}
	s.sampler = &Sampler{DatabaseURL: s.url, Slot: s.slot(), Reader: s.Reader, Every: 50 * time.Millisecond}
	return s.Load.Setup(ctx)
}

// background runs f until Close.
func (s *Stage) background(ctx context.Context, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	stop = func() { cancel(); <-done }
	s.closing = append(s.closing, stop)
	return stop
}

func (s *Stage) exactlyOnce() bool { return s.cfg.Delivery == relay.ExactlyOnce }

// connectPostgres lays the ways to the server.
func (s *Stage) connectPostgres() error {
	at, err := url.Parse(s.cfg.Server.URL())
	if err != nil {
		return errors.New("the server's URL is none") // the cause may quote a password
	}
	if s.cfg.Moves {
		if s.door, err = openDoor(at.Host); err != nil {
			return err
		}
		s.closing = append(s.closing, s.door.close)
		at.Host = s.door.address()
	}
	s.url, s.relays = at.String(), at.String()
	if s.cfg.Linked {
		if s.link, err = proxy.New(at.Host); err != nil {
			return err
		}
		s.closing = append(s.closing, func() { _ = s.link.Close() })
		at.Host = s.link.Addr()
		s.relays = at.String()
	}
	return nil
}

func (s *Stage) migrate(ctx context.Context) error {
	script, err := migrations.Script(migrations.Names{}, nil, migrations.Owner, migrations.Publication)
	if err != nil {
		return fmt.Errorf("make the outbox: %w", err)
	}
	if s.cfg.Load.Stream {
		script += "SELECT outbox.set_mode('stream');"
	}
	return s.Exec(ctx, script)
}

func (s *Stage) makeTopic(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Cluster.Direct()...))
	if err != nil {
		return fmt.Errorf("make a topic: %w", err)
	}
	defer client.Close()
	s.topic = fmt.Sprintf("chaos-%x-%x", s.cfg.Seed, time.Now().UnixNano())
	var settings map[string]*string
	if s.cfg.Compacted {
		if settings, err = compaction(ctx, kadm.NewClient(client)); err != nil {
			return err
		}
	}
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 6, -1, settings, s.topic); err != nil {
		return fmt.Errorf("make topic %s: %w", s.topic, err)
	}
	return s.cfg.Cluster.WaitInSync(ctx)
}

// Close ends everything that runs on the stage; relays are killed.
func (s *Stage) Close() {
	for _, p := range s.Relays {
		if p.Process != nil {
			_ = p.Thaw()
			p.Kill()
		}
	}
	for _, end := range slices.Backward(s.closing) {
		end()
	}
	s.closing = nil
	if s.db != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.db.Close(ctx)
	}
}

// Write starts the writers, and looks at the slot from now on.
func (s *Stage) Write(ctx context.Context) {
	s.background(ctx, s.sampler.Run)
	var once sync.Once
	var err error
	stop := s.background(ctx, func(ctx context.Context) { err = s.Load.Run(ctx) })
	s.writing = func() error { once.Do(stop); return err }
}

// DB is a connection to the primary, made anew if the last one was lost. URL is its address.
func (s *Stage) DB(ctx context.Context) (*pgx.Conn, error) {
	if s.db != nil && !s.db.IsClosed() {
		return s.db, nil
	}
	db, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return nil, fmt.Errorf("connect to the primary: %w", err)
	}
	s.db = db
	return db, nil
}

// URL is the address of Postgres for everybody but relays.
func (s *Stage) URL() string { return s.url }

// Exec runs statements on the primary.
func (s *Stage) Exec(ctx context.Context, sql string, args ...any) error {
	db, err := s.DB(ctx)
	if err != nil {
		return err
	}
	if _, err := db.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", shortened(sql), err)
	}
	return nil
}

// ask reads one row of one value from the primary.
func ask[T any](ctx context.Context, s *Stage, sql string, args ...any) (value T, err error) {
	db, err := s.DB(ctx)
	if err != nil {
		return value, err
	}
	if err := db.QueryRow(ctx, sql, args...).Scan(&value); err != nil {
		return value, fmt.Errorf("%s: %w", shortened(sql), err)
	}
	return value, nil
}

func shortened(sql string) string {
	words := strings.Join(strings.Fields(sql), " ")
	return words[:min(len(words), 60)]
}

// Postgres is the link between relays and the server.
func (s *Stage) Postgres() *proxy.Proxy { return s.link }

// until looks again and again until ok, for at most a step. ok's errors are for
// the message only: a server that is away may come back.
func (s *Stage) until(ctx context.Context, what string, ok func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Step)
	defer cancel()
	var last error
	for {
		done, err := ok(ctx)
		if fatal, is := errors.AsType[*endedError](err); is {
			return fmt.Errorf("wait until %s: %w", what, fatal)
		}
		if done && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if wait(ctx, 5*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("wait until %s: %w", what, context.Cause(ctx)), last)
		}
	}
}

// endedError means that waiting is in vain: the relay is gone.
type endedError struct {
	name string
	err  error
}

// Error implements error.
func (e *endedError) Error() string { return fmt.Sprintf("%s ended: %v", e.name, e.err) }
