package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReaderConfig says what is read.
type ReaderConfig struct {
	Brokers       []string
	Topics        []string // must exist
	ReadCommitted bool     // else also what was aborted
	// OnRecord is called for each record, from the goroutine of Run; nil: nobody.
	OnRecord func(*Record)
	Client   *Client // reads; nil: franz-go
	// Options come last and win, such as a dialer.
	Options []kgo.Opt
}

// Reader reads topics from their start and keeps what the verifier needs to
// know of each record: some 200 bytes, not the value.
type Reader struct {
	cfg    ReaderConfig
	client *kgo.Client
	names  map[string]string // one copy of each topic, key, type and source; used by Run only

	mu      sync.Mutex
	records []Record
	seen    map[ID]struct{}
	next    map[Partition]int64 // offset after the last one read, markers of transactions included
	changed chan struct{}       // closed and replaced after each fetch
}

// NewReader returns a reader that connects when it runs.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	isolation := kgo.ReadUncommitted()
	if cfg.ReadCommitted {
		isolation = kgo.ReadCommitted()
	}
	// Control records are kept because the marker that ends a transaction takes an
	// offset: without it the end of a partition could not be told from a wait.
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics(cfg.Topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(200 * time.Millisecond), kgo.MetadataMinAge(250 * time.Millisecond),
	}, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("reader of Kafka: %w", err)
	}
	return &Reader{
		cfg: cfg, client: client, names: map[string]string{},
		seen: map[ID]struct{}{}, next: map[Partition]int64{}, changed: make(chan struct{}),
	}, nil
}

// Run reads until ctx has ended, and then returns nil. Brokers that are away
// are waited for. Run may be called once; it closes the client.
func (r *Reader) Run(ctx context.Context) error {
	defer r.client.Close()
	if r.cfg.Client != nil {
		return r.runOther(ctx, r.cfg.Client)
	}
	for {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var failed error
		fetches.EachError(func(topic string, partition int32, err error) {
			// The client itself retries all that may heal.
			failed = errors.Join(failed, fmt.Errorf("read %s/%d: %w", topic, partition, err))
		})
		if failed != nil {
			return failed
		}
		next := map[Partition]int64{}
		var brought []*kgo.Record
		fetches.EachRecord(func(kr *kgo.Record) {
			next[Partition{kr.Topic, kr.Partition}] = kr.Offset + 1
			if !kr.Attrs.IsControl() {
				brought = append(brought, kr)
			}
		})
		r.take(brought, next)
	}
}

// take keeps records, and how far the partitions are read.
func (r *Reader) take(brought []*kgo.Record, next map[Partition]int64) {
	records := make([]Record, len(brought))
	for i, kr := range brought {
		records[i] = parseRecord(kr, r.intern)
	}
	r.mu.Lock()
	for i := range records {
		if records[i].Missing&MissingID == 0 {
			r.seen[records[i].ID] = struct{}{}
		}
	}
	r.records = append(r.records, records...)
	for p, offset := range next {
		r.next[partitionOf(r.intern, p)] = offset
	}
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if r.cfg.OnRecord != nil {
		for i := range records {
			r.cfg.OnRecord(&records[i])
		}
	}
}

func partitionOf(intern func(string) string, p Partition) Partition {
	return Partition{intern(p.Topic), p.Index}
}

func (r *Reader) intern(s string) string {
	if known, ok := r.names[s]; ok {
		return known
	}
	s = strings.Clone(s)
	r.names[s] = s
	return s
}

// Distinct is how many different rows were read so far.
func (r *Reader) Distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// WaitRows waits until n different rows were read, or ctx has ended.
func (r *Reader) WaitRows(ctx context.Context, n int) error {
	return r.until(ctx, func() bool { return len(r.seen) >= n })
}

// WaitFor waits until all ids were read. It gives up when nothing new has
// arrived for quiet, or when ctx has ended, and says how many are missing.
func (r *Reader) WaitFor(ctx context.Context, ids []ID, quiet time.Duration) error {
	complete := func() bool {
		return len(r.seen) >= len(ids) && r.missing(ids) == 0
	}
	for {
		before := r.Distinct()
		step, cancel := context.WithTimeoutCause(ctx, quiet, fmt.Errorf("nothing new for %v", quiet))
		err := r.until(step, func() bool { return len(r.seen) > before || complete() })
		cancel()
		r.mu.Lock()
		done, missing := complete(), 0
		if !done && err != nil {
			missing = r.missing(ids)
		}
		r.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return fmt.Errorf("%d of %d rows did not arrive: %w", missing, len(ids), err)
		}
	}
}

// missing is how many of ids were not read; call it with the lock held.
func (r *Reader) missing(ids []ID) (n int) {
	for _, id := range ids {
		if _, there := r.seen[id]; !there {
			n++
		}
	}
	return n
}

// until waits for done, which is called with the lock held after each fetch.
func (r *Reader) until(ctx context.Context, done func() bool) error {
	for {
		r.mu.Lock()
		ok, changed := done(), r.changed
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// CatchUp waits until everything was read that is on Kafka now. Call it when the
// relay has stopped, before Records; it needs Run at work.
func (r *Reader) CatchUp(ctx context.Context) error {
	ends, err := r.Ends(ctx)
	if err != nil {
		return err
	}
	return r.until(ctx, func() bool {
		for p, end := range ends {
			if r.next[p] < end {
				return false
			}
		}
		return true
	})
}

// Ends asks the brokers for the end of each partition that is not empty, as a
// reader of this isolation sees it.
func (r *Reader) Ends(ctx context.Context) (map[Partition]int64, error) {
	return r.ends(ctx, r.cfg.ReadCommitted)
}

// LogEnds is Ends with what is not visible to readers of committed records yet:
// brokers answer a commit before they have told the partitions of it.
func (r *Reader) LogEnds(ctx context.Context) (map[Partition]int64, error) {
	return r.ends(ctx, false)
}

func (r *Reader) ends(ctx context.Context, committed bool) (map[Partition]int64, error) {
	adm := kadm.NewClient(r.client)
	list := adm.ListEndOffsets
	if committed {
		list = adm.ListCommittedOffsets
	}
	offsets, err := list(ctx, r.cfg.Topics...)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the ends of the topics: %w", err)
	}
	ends := map[Partition]int64{}
	offsets.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			ends[Partition{o.Topic, o.Partition}] = o.Offset
		}
	})
	return ends, nil
}

// Records returns what was read so far, for the verifier: by topic, partition and offset.
func (r *Reader) Records() []Record {
	r.mu.Lock()
	records := slices.Clone(r.records)
	r.mu.Unlock()
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return records
}
