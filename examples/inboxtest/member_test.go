package inboxtest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/examples/consumer"
	"github.com/outrider-cdc/outrider/internal/harness/child"
	"github.com/outrider-cdc/outrider/outbox/inbox"
)

// A member of a consumer group is a process: this test binary, with these variables.
const (
	memberVariable  = "TEST_INBOX_MEMBER" // name of the consumer and of its group: byID or byPosition
	brokersVariable = "TEST_INBOX_BROKERS"
	topicsVariable  = "TEST_INBOX_TOPICS"
	urlVariable     = "TEST_INBOX_URL"
	dieVariable     = "TEST_INBOX_DIE" // where, and at which batch: before-commit 7
)

// The consumers: one for each way.
const (
	byID       = "ids"
	byPosition = "positions"
)

// Moments at which a member kills itself.
const (
	beforeCommit = "before-commit" // the effects are in the transaction, which is lost
	afterCommit  = "after-commit"  // the effects are committed, the offset is not
)

// member is main of such a process. It returns the exit code.
func member() int {
	if err := consume(context.Background(), os.Getenv(memberVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func consume(ctx context.Context, name string) error {
	db, err := pgx.Connect(ctx, os.Getenv(urlVariable))
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv(brokersVariable), ",")...), kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(strings.Split(os.Getenv(topicsVariable), ",")...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.SessionTimeout(2*time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			for topic, partitions := range assigned {
				fmt.Println("assigned", topic, partitions)
			}
		}),
	)
	if err != nil {
		return err
	}
	where, at, _ := strings.Cut(os.Getenv(dieVariable), " ")
	left, _ := strconv.Atoi(at)
	die := func(here string) func() {
		return func() {
			if here != where {
				return
			}
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until it has struck
			}
		}
	}
	c := &consumer.Consumer{
		Client: client, DB: db, Inbox: inbox.Consumer{Name: name}, ByID: name == byID,
		BeforeCommit: die(beforeCommit), AfterCommit: func() { fmt.Println(taken); die(afterCommit)() },
		Effect: func(ctx context.Context, tx pgx.Tx, r *kgo.Record) error {
			id, _ := consumer.Record(r).Header("id")
			_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, event, record) VALUES ($1, $2, $3)`, name, string(id), consumer.Record(r).String())
			return err
		},
	}
	return c.Run(ctx)
}

// group keeps members running: one that ends is followed by another.
type group struct {
	t     *testing.T
	env   []string
	mu    sync.Mutex
	log   strings.Builder
	lives map[string]int // how members ended
	all   sync.WaitGroup
	stop  context.CancelFunc
}

// taken is what a member says when a batch is committed.
const taken = "taken"

// voice is what one member says. enough is closed when it has taken some batches.
type voice struct {
	g      *group
	left   int
	enough chan struct{}
}

// Write implements io.Writer.
func (v *voice) Write(b []byte) (int, error) {
	if v.left > 0 {
		if v.left -= bytes.Count(b, []byte(taken)); v.left <= 0 {
			close(v.enough)
		}
	}
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.g.log.Write(bytes.ReplaceAll(b, []byte(taken+"\n"), nil))
	return len(b), nil // less would close the member's stdout, and end it
}

// gather starts n members of each consumer. Every other life of a member ends by
// its own hand at one of the moments, the others are killed from outside: after
// so many batches, not after a time, so that a busy machine gets on, too.
func gather(t *testing.T, n int, brokers, topics []string, url string) *group {
	t.Helper()
	g := &group{t: t, lives: map[string]int{}, env: []string{
		brokersVariable + "=" + strings.Join(brokers, ","), topicsVariable + "=" + strings.Join(topics, ","), urlVariable + "=" + url,
	}}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	g.stop = stop
	for _, name := range []string{byID, byPosition} {
		for i := range n {
			g.all.Go(func() { g.keep(ctx, name, i) })
		}
	}
	t.Cleanup(func() {
		g.end()
		if t.Failed() {
			t.Logf("members: %v\n%s", g.lives, g.text())
		}
	})
	return g
}

// end kills all members, and returns when they are gone.
func (g *group) end() {
	g.stop()
	g.all.Wait()
}

func (g *group) keep(ctx context.Context, name string, i int) {
	for life := i; ctx.Err() == nil; life++ {
		cmd := exec.CommandContext(context.Background(), os.Args[0])
		cmd.Env = append(os.Environ(), append(g.env, memberVariable+"="+name)...)
		end := "failed"
		if life%2 == 1 {
			end = []string{beforeCommit, afterCommit}[life/2%2]
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s %d", dieVariable, end, 4+life%4))
		}
		says := &voice{g: g, left: 10 + life%5, enough: make(chan struct{})}
		cmd.Stdout = says
		cmd.Stderr = cmd.Stdout // one writer: one goroutine
		p, err := child.Start(cmd, syscall.SIGKILL)
		if err != nil {
			g.t.Error(err)
			return
		}
		select {
		case <-p.Done():
		case <-says.enough:
			p.Kill()
			end = "killed"
		case <-ctx.Done():
			p.Kill()
			end = "stopped"
		}
		g.mu.Lock()
		g.lives[name+" "+end]++
		g.mu.Unlock()
	}
}

// died tells whether a member of each consumer has died in each way.
func (g *group) died() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, consumer := range []string{byID, byPosition} {
		for _, end := range []string{beforeCommit, afterCommit, "killed"} {
			if g.lives[consumer+" "+end] == 0 {
				return fmt.Errorf("no member of %s ended: %s", consumer, end)
			}
		}
	}
	return nil
}

func (g *group) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}
