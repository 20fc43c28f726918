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

// field is what clusters of one arena differ by.
type field struct {
	nodes      int
	properties string
}

func (f Fault) field() field { return field{max(f.Nodes, 1), f.Properties} }

// ground returns a cluster, started when it is first asked for.
func (a *Arena) ground(ctx context.Context, on field) (*ground, error) {
	if g := a.grounds[on]; g != nil {
		return g, nil
	}
	version := a.Kafka
	if version == "" {
		version = kafka.Version
	}
	g := &ground{links: make([]*proxy.Proxy, on.nodes)}
	cluster, err := kafka.Open(ctx, kafka.Options{
		Nodes: on.nodes, Version: version, Logger: a.Log,
		Properties: strings.FieldsFunc(on.properties, func(r rune) bool { return r == ',' }),
		Advertise: func(node int, address string) (string, error) {
			if old := g.links[node-1]; old != nil { // an attempt to start whose ports were taken
				_ = old.Close()
			}
			link, err := proxy.New(address)
			if err != nil {
				return "", err
			}
			link.Inspect(func() proxy.Inspector { return g.wire.inspect(node) })
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
		a.grounds = map[field]*ground{}
	}
	a.grounds[on] = g
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
func (a *Arena) leave(on field) {
	if g := a.grounds[on]; g != nil {
		g.close()
		delete(a.grounds, on)
	}
}

// Close ends all clusters.
func (a *Arena) Close() {
	for on := range a.grounds {
		a.leave(on)
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
	if g := a.grounds[f.field()]; g != nil {
		for id := range g.cluster.Nodes() {
			write(fmt.Sprintf("kafka-%d.log", id+1), g.cluster.Log(id+1))
		}
	}
}
