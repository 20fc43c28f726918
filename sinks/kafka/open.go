package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/outrider-cdc/outrider/relay"
)

// Options is what the sink is given by the program around it.
type Options struct {
	// ExactlyOnce makes the sink write in transactions that hold a checkpoint,
	// so that readers of committed records see each message once. It needs
	// Kafka 3.6 or later.
	ExactlyOnce bool
	// ClientID is shown to the brokers: in their logs, metrics and quotas.
	ClientID string
	// MaxInFlightBytes is the caller's budget for unsettled messages, each
	// counted with 512 bytes beside its own. The sink's buffers are sized by
	// it; 0 means 64 MiB.
	MaxInFlightBytes int64
	// Logger gets what franz-go says; its infos are debug here. nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets franz-go's metrics. nil: none.
	Registerer prometheus.Registerer
	// Dial opens the connections under TLS. nil: net.Dialer with keepalives.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sink publishes to Kafka: at least once, or with [Options.ExactlyOnce] in transactions.
type Sink struct {
	cfg        Config
	opts       Options
	explain    classifier
	conditions conditions
	pending    pending
	records    sync.Pool    // of *record
	group      atomic.Int32 // a groupLimit; one leadership learns from the other

	mu      sync.Mutex               // held by Begin and Close, which replace current
	current atomic.Pointer[producer] // nil before the first Begin and after Close
}

var _ relay.Transactional = (*Sink)(nil)

const defaultInFlightBytes = 64 << 20

// New returns a sink for cfg. It does no I/O; the error is cfg.Validate's.
func New(cfg Config, opts Options) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if opts.MaxInFlightBytes <= 0 {
		opts.MaxInFlightBytes = defaultInFlightBytes
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	return &Sink{
		cfg: cfg, opts: opts,
		explain: classifier{brokers: cfg.Brokers, user: cfg.SASLUsername, mechanism: cfg.SASLMechanism, certificate: cfg.TLSCertFile != ""},
		pending: pending{zero: make(chan struct{}, 1)},
	}, nil
}

const (
	dialTimeout    = 10 * time.Second
	minBackoff     = 75 * time.Millisecond
	maxBackoff     = time.Second
	metadataMinAge = 250 * time.Millisecond
	// maxRequestBytes is franz-go's and Kafka's limit of one request (socket.request.max.bytes).
	maxRequestBytes = 100 << 20
	// messageOverhead is what the relay charges a message beside its bytes.
	messageOverhead = 512
)

// Checkpointed implements [relay.Transactional].
func (s *Sink) Checkpointed() bool { return s.opts.ExactlyOnce }

// connectOptions are what every client needs, whatever it is for.
func (s *Sink) connectOptions(p *producer) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(s.cfg.Brokers...),
		kgo.ClientID(s.opts.ClientID),
		kgo.WithLogger(quieter{kslog.New(s.opts.Logger)}),
		kgo.Dialer(p.dial),
		// Pushing metrics to brokers that collect them (KIP-714) makes each close
		// wait up to a second for a last push; ours go to Prometheus.
		kgo.DisableClientMetrics(),
		kgo.RetryBackoffFn(backoff),
	}
	if m := s.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// Acks of all in-sync replicas and idempotence are franz-go's defaults, and
// its default partitioner hashes keys with murmur2 as Java's does. What it must
// never get: a record timeout, a limit of retries or a context that can end,
// since each fails records whose fate is unknown.
func (s *Sink) clientOptions(p *producer) []kgo.Opt {
	compression, _ := codec(s.cfg.Compression) // New has validated it
	opts := append(s.connectOptions(p),
		// An end of file on the first read may be a wrong listener, or a load
		// balancer whose broker is away. In-flight records must survive the second.
		kgo.AlwaysRetryEOF(),
		// The default of 5 s is a pause of 5 s after one change of a leader.
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ProducerLinger(s.cfg.Linger),
		kgo.ProducerBatchCompression(compression),
		// franz-go never splits a batch: one larger than the topic takes would
		// be refused although each of its records is small.
		kgo.ProducerBatchMaxBytesFn(p.batchBytes),
		// Never the limit that is hit first: Publish must not block, and has no
		// error to return. The second one over is for a checkpoint.
		kgo.MaxBufferedRecords(int(s.opts.MaxInFlightBytes/messageOverhead)+2),
		// A topic that is gone is waited for; see scout.
		kgo.UnknownTopicRetries(-1),
	)
	if s.opts.ExactlyOnce {
		opts = append(opts, s.transactional(p.source.Load())...)
	}
	if s.opts.Registerer != nil {
		// One for each client: it unregisters when the client is closed.
		opts = append(opts, kgo.WithHooks(kprom.NewMetrics("outrider_kafka", kprom.Registerer(s.opts.Registerer))))
	}
	return opts
}

// newClient connects to nothing yet; franz-go only checks its options.
func newClient(opts []kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, &relay.Halt{
			Reason: "kafka_settings", Err: fmt.Errorf("make kafka client: %w", err),
			Hints: []relay.Hint{{Say: "correct the variables that begin with " + envPrefix}},
		}
	}
	return client, nil
}

// backoff is how long to wait after the n-th failure in a row, n from 1.
func backoff(n int) time.Duration {
	d := minBackoff << min(max(n-1, 0), 10)
	d = min(d, maxBackoff)
	return d - rand.N(d/4)
}

// quieter demotes franz-go's infos to debug: they tell of every metadata
// update, which is nothing that happened to the relay.
type quieter struct{ *kslog.Logger }

// Level implements [kgo.Logger].
func (q quieter) Level() kgo.LogLevel {
	if l := q.Logger.Level(); l != kgo.LogLevelInfo {
		return l
	}
	return kgo.LogLevelWarn
}

// Log implements [kgo.Logger].
func (q quieter) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelInfo {
		level = kgo.LogLevelDebug
	}
	q.Logger.Log(level, msg, keyvals...)
}
