package kafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// newID makes a Kafka id: 16 random bytes. The tool would take one that begins
// with a dash for an option.
func newID() string {
	for {
		var b [16]byte
		_, _ = rand.Read(b[:])
		if id := base64.RawURLEncoding.EncodeToString(b[:]); id[0] != '-' {
			return id
		}
	}
}

// format makes the data folders ready for a first start. Kafka's tool, which
// takes a second, formats that of the first node. The others differ in two ids.
// What must not be left out is bootstrap.checkpoint: a node without it starts as
// well, but with the features of an old version.
func (c *Cluster) format(ctx context.Context) error {
	first := c.nodes[0]
	args := append(c.flags(first), "kafka.tools.StorageTool", "format", "-t", c.id, "-c", first.config())
	if out, err := exec.CommandContext(ctx, c.jars.java, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format the first node: %w: %s", err, tail(string(out), 20))
	}
	const meta, checkpoint = "meta.properties", "bootstrap.checkpoint"
	metaText, err := os.ReadFile(filepath.Join(first.data(), meta))
	if err != nil {
		return err
	}
	features, err := os.ReadFile(filepath.Join(first.data(), checkpoint))
	if err != nil {
		return err
	}
	for _, n := range c.nodes[1:] {
		text := nodeLine.ReplaceAllString(string(metaText), fmt.Sprintf("node.id=%d", n.id))
		text = directoryLine.ReplaceAllString(text, "directory.id="+newID())
		if err := os.WriteFile(filepath.Join(n.data(), meta), []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.data(), checkpoint), features, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var (
	nodeLine      = regexp.MustCompile(`(?m)^node\.id=.*$`)
	directoryLine = regexp.MustCompile(`(?m)^directory\.id=.*$`)
)
