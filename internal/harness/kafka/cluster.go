package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// Cluster is a cluster. Its nodes are numbered from 1. Methods that start or
// end a node are for one goroutine at a time and node; all others may be called
// from any.
type Cluster struct {
	options Options
	jars    jars
	id      string // of the cluster
	folder  *child.Folder
	nodes   []*node
	shared  []string // instead of all the above: bootstrap list of somebody else's cluster
}

// ErrShared is what methods return that need a cluster of our own, when the
// environment named one that runs already.
var ErrShared = errors.New("the cluster is shared: " + Variable + " is a bootstrap list")

// Open starts a new cluster and returns when every broker knows all others and
// a controller. ctx bounds the start, downloads included, not the cluster's
// life. The error wraps [ErrNoBuild] if there is no Kafka to be had.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.Nodes != 1 && o.Nodes != 3 {
		return nil, fmt.Errorf("open a cluster of %d nodes: only 1 and 3 are supported", o.Nodes)
	}
	if list := os.Getenv(Variable); strings.Contains(list, ":") {
		if o.Nodes > 1 || o.Version != "" || len(o.Properties) > 0 || o.Advertise != nil {
			return nil, fmt.Errorf("open a cluster with options of its own: %w", ErrShared)
		}
		return &Cluster{options: o, shared: strings.Split(list, ",")}, nil
	}
	j, err := findJars(ctx, &o)
	if err != nil {
		return nil, err
	}
	for range 3 {
		c, err := open(ctx, j, o)
		if err == nil {
			return c, nil
		}
		if err := errors.Join(err, c.Close()); !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
	return nil, errors.New("open a cluster: other processes took our ports three times")
}

// open returns what it made also when it fails, for Close.
func open(ctx context.Context, j jars, o Options) (*Cluster, error) {
	c := &Cluster{options: o, jars: j, id: newID()}
	if err := c.lay(); err != nil {
		return c, err
	}
	if err := c.format(ctx); err != nil {
		return c, err
	}
	err := c.StartAll(ctx)
	return c, err
}

// lay makes the folders and gives every node its ports.
func (c *Cluster) lay() (err error) {
	if c.folder, err = child.NewFolder(c.options.Dir, "outrider-kafka-"); err != nil {
		return err
	}
	ports, err := child.FreePorts(3 * c.options.Nodes)
	if err != nil {
		return err
	}
	for i := range c.options.Nodes {
		n := &node{
			id: i + 1, dir: filepath.Join(c.folder.Path(), fmt.Sprintf("node%d", i+1)),
			client: ports[3*i], internal: ports[3*i+1], controller: ports[3*i+2],
		}
		n.advertised = local(n.client)
		if c.options.Advertise != nil {
			if n.advertised, err = c.options.Advertise(n.id, local(n.client)); err != nil {
				return fmt.Errorf("advertise node %d: %w", n.id, err)
			}
		}
		c.nodes = append(c.nodes, n)
	}
	if err := os.WriteFile(c.logConfig(), []byte(c.jars.logging()), 0o644); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := os.MkdirAll(n.data(), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(n.config(), []byte(c.properties(n)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) logConfig() string { return filepath.Join(c.folder.Path(), "log.properties") }

// Brokers is the bootstrap list for clients, with the advertised addresses.
func (c *Cluster) Brokers() []string {
	if c.shared != nil {
		return c.shared
	}
	addresses := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addresses[i] = n.advertised
	}
	return addresses
}

// Direct is a bootstrap list that goes past what [Options] advertise, for a
// client that checks what came through.
func (c *Cluster) Direct() []string {
	if c.shared != nil {
		return c.shared
	}
	addresses := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addresses[i] = local(n.internal)
	}
	return addresses
}

// Nodes is how many nodes the cluster has, running or not; 0 if it is shared.
func (c *Cluster) Nodes() int { return len(c.nodes) }

// Java returns the java command that runs the brokers, and the class path of
// their jars, which hold the Java client.
func (c *Cluster) Java() (command, classPath string) { return c.jars.java, c.jars.classPath() }

// Close kills all nodes and removes all files. It may be called again.
func (c *Cluster) Close() error {
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		if p := n.running(); p != nil {
			wg.Go(p.Kill)
		}
	}
	wg.Wait()
	if c.folder == nil {
		return nil
	}
	if err := c.folder.Remove(); err != nil {
		return fmt.Errorf("remove a cluster's files: %w", err)
	}
	return nil
}

// StartAll starts all nodes that do not run, and waits as [Open] does.
func (c *Cluster) StartAll(ctx context.Context) error {
	if c.shared != nil {
		return ErrShared
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, n := range c.nodes {
		if err := c.launch(n); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		g.Go(func() error { return c.ready(ctx, n) })
	}
	return g.Wait()
}

// StopAll stops all nodes at once, in order: the last nodes of a quorum cannot
// finish a controlled shutdown alone, so one after the other would not do. Who
// is not gone after 20 s is killed.
func (c *Cluster) StopAll(ctx context.Context) error {
	if c.shared != nil {
		return ErrShared
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		g.Go(func() error { return c.Stop(ctx, n.id) })
	}
	return g.Wait()
}

// limits of a start on a busy machine, and of a stop in order.
const (
	startLimit = 2 * time.Minute
	stopLimit  = 20 * time.Second
)
