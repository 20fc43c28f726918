package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/relay"
)

// transactor writes messages in transactions, in the order of Publish, each
// with a checkpoint of what it covers. One goroutine takes messages from the
// queue, hands them to franz-go, commits and settles; so of two transactions
// the second begins when the first is certain.
//
// It never begins again after something went wrong: the leadership ends, and
// the next one has a new client, which fences this one.
type transactor struct {
	producer *producer
	timeout  time.Duration // after which the brokers give up a transaction of ours
	ctx      context.Context
	stop     context.CancelFunc
	done     chan struct{} // closed when run has ended; nil before it started
	wake     chan struct{} // something changed: input, an answer, a topic

	mu       sync.Mutex
	input    []entry
	over     error // with which all that is published from now on settles; nil: not over
	failures []failure

	out    atomic.Int64 // records whose promise is due
	broken atomic.Bool  // failures are noted

	// All below is touched by run only.
	covered   coverage
	tx        transaction
	owed      []entry // others were let past these, which wait for their topics
	queue     []entry // what comes behind them, from head on
	head      int
	committed time.Time // when the last transaction was
}

// entry is one message that was published and is in no transaction yet.
type entry struct {
	message *relay.Message
	topic   *topic // nil with err
	err     error  // with which it settles in its turn
}

// failure is an error that a promise brought.
type failure struct {
	message *relay.Message // nil: a checkpoint
	err     error
}

const (
	// A transaction takes no more after groupAge, groupRecords or groupBytes,
	// or when all it has is acknowledged and nothing more has come.
	groupAge     = 50 * time.Millisecond
	groupRecords = 20_000
	groupBytes   = 16 << 20
	// groupGap is the least time from a commit to the next transaction. Brokers
	// write the markers of a commit after they have answered; a record that
	// comes before them is put off by add.partitions.to.txn.retry.backoff.ms,
	// 20 ms, on the broker, which costs more than to wait here.
	groupGap = 5 * time.Millisecond
	// maxOwed bounds the list of rows in a checkpoint that others were let past.
	maxOwed = 1000
)

// transactional are the options of a client that writes for source.
func (s *Sink) transactional(source *relay.Source) []kgo.Opt {
	return []kgo.Opt{
		kgo.TransactionalID(transactionalID(source)),
		kgo.TransactionTimeout(s.transactionTimeout()),
		// The end of a transaction is asked for once. franz-go would ask again
		// after a lost answer; brokers whose transaction.version is below 2
		// could then apply the first request to the transaction after it
		// (KAFKA-17754). What became of it is read from the checkpoint instead.
		kgo.RetryTimeoutFn(func(key int16) time.Duration {
			if key == keyEndTxn {
				return 1
			}
			return retryTimeout
		}),
	}
}

const (
	keyEndTxn    = 26               // of the Kafka protocol
	retryTimeout = 30 * time.Second // franz-go's default
)

func (s *Sink) transactionTimeout() time.Duration {
	if s.cfg.TransactionTimeout != 0 {
		return s.cfg.TransactionTimeout
	}
	return defaultTransactionTimeout
}

// newTransactor makes one that only collects until start.
func newTransactor(p *producer) *transactor {
	x := &transactor{producer: p, timeout: p.sink.transactionTimeout(), wake: make(chan struct{}, 1)}
	x.ctx, x.stop = context.WithCancel(context.Background())
	return x
}

// start lets transactions begin, after what checkpoint covers.
func (x *transactor) start(checkpoint relay.Checkpoint) {
	x.covered = newCoverage(x.producer.source.Load(), checkpoint)
	x.done = make(chan struct{})
	go x.run()
}

// close gives up what is not committed. An open transaction is aborted if the
// brokers answer within abortPatience.
func (x *transactor) close() {
	x.stop()
	if x.done != nil {
		<-x.done
	}
}

// notify makes run look again. x may be nil.
func (x *transactor) notify() {
	if x == nil {
		return
	}
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// publish takes e. The sink's one publishing goroutine calls it.
func (x *transactor) publish(e entry) {
	x.mu.Lock()
	over, first := x.over, len(x.input) == 0
	if over == nil {
		x.input = append(x.input, e)
	}
	x.mu.Unlock()
	if over != nil {
		x.producer.sink.settle(e.message, over)
		return
	}
	if t := e.topic; t != nil && !t.direct.Load() && !t.wanted.Swap(true) {
		x.producer.poke()
	}
	if first {
		x.notify()
	}
}

func (x *transactor) run() {
	defer close(x.done)
	for {
		select {
		case <-x.wake:
		case <-x.ctx.Done():
			x.quit(errClosed)
			return
		}
		for sent := true; sent; {
			var err error
			if sent, err = x.transact(); err != nil {
				x.quit(err)
				return
			}
		}
		if x.producer.ending.Load() && len(x.owed)+len(x.queue)-x.head > 0 {
			x.quit(errSuperseded) // what is left waits for topics, which may take for ever
			return
		}
	}
}

// quit settles all that is in no transaction, and whatever is still published, with err.
func (x *transactor) quit(err error) {
	x.producer.failed.Store(true)
	x.mu.Lock()
	x.over = err
	input := x.input
	x.input = nil
	x.mu.Unlock()
	for _, entries := range [][]entry{x.owed, x.queue[x.head:], input} {
		for _, e := range entries {
			x.producer.sink.settle(e.message, err)
		}
	}
	x.owed, x.queue, x.head = nil, nil, 0
}

// promised is told by franz-go what became of a record.
func (x *transactor) promised(k *kgo.Record, err error) {
	r := k.Context.(*record) // fill put it there
	t, m := r.topic, r.message
	x.producer.sink.release(r)
	t.settled.Add(1)
	x.answered(m, err)
}

// answered notes the promise of m, or of a checkpoint (nil).
func (x *transactor) answered(m *relay.Message, err error) {
	if err != nil {
		x.mu.Lock()
		x.failures = append(x.failures, failure{m, err})
		x.mu.Unlock()
		if !x.broken.Swap(true) {
			x.notify()
		}
	}
	if x.out.Add(-1) == 0 {
		x.notify()
	}
}

// begin waits for its time and begins tx.
func (x *transactor) begin(tx *transaction) error {
	if wait := groupGap - time.Since(x.committed); wait > 0 {
		select {
		case <-time.After(wait):
		case <-x.ctx.Done():
			return errClosed
		}
	}
	if err := x.producer.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a transaction: %w", x.class(err, 0))
	}
	tx.begun = time.Now()
	return nil
}
