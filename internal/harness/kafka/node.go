package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// node is broker and controller in one process.
type node struct {
	id                           int
	dir                          string
	client, internal, controller int // ports
	advertised                   string

	mu      sync.Mutex
	process *child.Process
}

func (n *node) data() string   { return filepath.Join(n.dir, "data") }
func (n *node) config() string { return filepath.Join(n.dir, "server.properties") }
func (n *node) log() string    { return filepath.Join(n.dir, "log") }

// running is the process, or nil.
func (n *node) running() *child.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || !n.process.Running() {
		return nil
	}
	return n.process
}

// node finds a node by its number.
func (c *Cluster) node(id int) (*node, error) {
	if c.shared != nil {
		return nil, ErrShared
	}
	if id < 1 || id > len(c.nodes) {
		return nil, fmt.Errorf("there is no node %d of %d", id, len(c.nodes))
	}
	return c.nodes[id-1], nil
}

// Kill kills a node and returns when it is gone. One that does not run is no error.
func (c *Cluster) Kill(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if p := n.running(); p != nil {
		p.Kill()
	}
	return nil
}

// Stop stops a node in order: it hands over what it leads, for which a
// quorum of the others must run. After 20 s it is killed. One that does not run
// is no error.
func (c *Cluster) Stop(ctx context.Context, id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	p := n.running()
	if p == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	err = p.Stop(limited, syscall.SIGTERM)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		p.Kill()
		return nil
	}
	return err
}

// StartNode starts a node on its data, and returns when it knows all nodes that
// run and a controller. Its replicas may not have caught up: see [Cluster.WaitInSync].
func (c *Cluster) StartNode(ctx context.Context, id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := c.launch(n); err != nil {
		return err
	}
	return c.ready(ctx, n)
}

// Pause freezes a node: its connections stay open and nothing answers.
func (c *Cluster) Pause(id int) error { return c.signal(id, syscall.SIGSTOP) }

// Resume lets a frozen node go on.
func (c *Cluster) Resume(id int) error { return c.signal(id, syscall.SIGCONT) }

func (c *Cluster) signal(id int, s syscall.Signal) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	p := n.running()
	if p == nil {
		return fmt.Errorf("node %d does not run", id)
	}
	return p.Signal(s)
}

// Pid is a node's process id; 0 if it does not run.
func (c *Cluster) Pid(id int) int {
	n, err := c.node(id)
	if err != nil {
		return 0
	}
	if p := n.running(); p != nil {
		return p.Pid()
	}
	return 0
}

// Log is what a node has logged so far, over all its starts.
func (c *Cluster) Log(id int) string {
	n, err := c.node(id)
	if err != nil {
		return ""
	}
	text, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (c *Cluster) launch(n *node) error {
	if n.running() != nil {
		return nil
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// No context bounds its life.
	cmd := exec.CommandContext(context.Background(), c.jars.java, append(c.flags(n), "kafka.Kafka", n.config())...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, log, log
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// ready waits until n itself names every node that runs, and a controller: its
// port opens long before.
func (c *Cluster) ready(ctx context.Context, n *node) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("node %d ended\n%s", n.id, tail(c.Log(n.id), 20))
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(local(n.internal)))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !c.knowsAll(ctx, client.SeedBrokers()[0]) {
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("node %d ended: %w\n%s", n.id, p.Err(), tail(c.Log(n.id), 20))
		case <-ctx.Done():
			return fmt.Errorf("node %d is not ready: %w\n%s", n.id, context.Cause(ctx), tail(c.Log(n.id), 20))
		}
	}
	return nil
}

func (c *Cluster) knowsAll(ctx context.Context, broker *kgo.Broker) bool {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{} // none; nil would be all
	response, err := broker.Request(ctx, request)
	if err != nil {
		return false
	}
	metadata, ok := response.(*kmsg.MetadataResponse)
	if !ok || metadata.ControllerID < 0 {
		return false
	}
	named := map[int]bool{}
	for _, b := range metadata.Brokers {
		named[int(b.NodeID)] = true
	}
	for _, n := range c.nodes {
		if n.running() != nil && !named[n.id] {
			return false
		}
	}
	return true
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
