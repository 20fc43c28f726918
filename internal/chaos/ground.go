package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/internal/harness/proxy"
)

func (f Fault) nodes() int { return max(f.Nodes, 1) }

// ground returns the cluster of that many nodes, started when it is first asked for.
func (a *Arena) ground(ctx context.Context, nodes int) (*ground, error) {
	if g := a.grounds[nodes]; g != nil {
		return g, nil
	}
	g := &ground{links: make([]*proxy.Proxy, nodes)}
	cluster, err := kafka.Open(ctx, kafka.Options{
		Nodes: nodes, Version: kafka.Version, Logger: a.Log,
		Advertise: func(node int, address string) (string, error) {
			if old := g.links[node-1]; old != nil { // an attempt to start whose ports were taken
				_ = old.Close()
			}
			link, err := proxy.New(address)
			if err != nil {
				return "", err
			}
			g.links[node-1] = link
			return link.Addr(), nil
		},
	})
	if err != nil {
		g.close()
		return nil, err
	}
	g.cluster = cluster
	if a.grounds == nil {
		a.grounds = map[int]*ground{}
	}
	a.grounds[nodes] = g
	return g, nil
}

func (g *ground) close() {
	if g.cluster != nil {
		_ = g.cluster.Close()
	}
	for _, link := range g.links {
		if link != nil {
			_ = link.Close()
		}
	}
}

// leave gives a cluster up; the next repetition starts another.
func (a *Arena) leave(nodes int) {
	if g := a.grounds[nodes]; g != nil {
		g.close()
		delete(a.grounds, nodes)
	}
}

// Close ends all clusters.
func (a *Arena) Close() {
	for nodes := range a.grounds {
		a.leave(nodes)
	}
}

// keep writes what is known of a failure beside the logs of the relays.
func (a *Arena) keep(f Fault, r *Repetition, server *postgres.Server) {
	var b strings.Builder
	fmt.Fprintf(&b, "fault: %s (%s)\npostgres: %s\nseed: %d\nevidence: %s\nreport: %s\n\n%v\n", f.Name, f.Description, r.Postgres, r.Seed, r.Evidence, r.Report, r.Err)
	write := func(name, text string) { _ = os.WriteFile(filepath.Join(r.Folder, name), []byte(text), 0o644) }
	write("report.txt", b.String())
	if server != nil {
		write("postgres.log", server.Log())
	}
	if g := a.grounds[f.nodes()]; g != nil {
		for id := range g.cluster.Nodes() {
			write(fmt.Sprintf("kafka-%d.log", id+1), g.cluster.Log(id+1))
		}
	}
}
