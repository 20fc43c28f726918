package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed profile_overlay.go.txt
var profileSource []byte

// profiles makes a CPU profile of the relay into each sink, in runs that do not
// count: a profile costs some per cent itself.
func (b *bench) profiles(ctx context.Context, data *data) error {
	if b.options.profile == "" {
		return nil
	}
	binary, err := b.buildProfiled(ctx)
	if err != nil {
		return err
	}
	for _, l := range b.legs() {
		if !l.relay {
			continue
		}
		name := data.part + "-" + l.sink
		if l.exact {
			name += "-exactly-once"
		}
		file, err := filepath.Abs(filepath.Join(b.options.profile, name+".pprof"))
		if err != nil {
			return err
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := b.relayRun(ctx, l, name+"-profile", data, binary, file); err != nil {
			return fmt.Errorf("profile %s, %s: %w", data.part, l.name, err)
		}
		out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=25", binary, file).Output()
		if err != nil {
			return fmt.Errorf("read the profile: %w", err)
		}
		b.say("profile %s:\n%s", file, bytes.TrimSpace(out))
	}
	return nil
}

// buildProfiled compiles the relay with profile_overlay.go.txt beside its main
// package, without touching the tree.
func (b *bench) buildProfiled(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", modulePath).Output()
	if err != nil {
		return "", fmt.Errorf("find the relay's sources: %w", err)
	}
	source, overlay := filepath.Join(b.folder.Path(), "profile.go"), filepath.Join(b.folder.Path(), "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(strings.TrimSpace(string(out)), "bench_profile.go"): source,
	}})
	if err != nil {
		return "", err
	}
	err = errors.Join(os.WriteFile(source, profileSource, 0o644), os.WriteFile(overlay, text, 0o644), os.MkdirAll(b.options.profile, 0o755))
	if err != nil {
		return "", err
	}
	return b.buildRelay(ctx, "outrider-profiled", "-overlay", overlay, "-ldflags", "") // with symbols
}

// profiledRelay is a relay that writes its profile to file.
type profiledRelay struct {
	*relayProcess
	file string
}

// finished waits for the profile, too.
func (p *profiledRelay) finished(ctx context.Context) error {
	if err := p.relayProcess.finished(ctx); err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	return poll(ctx, 10*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(p.file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, p.ended()
		}
		return true, err
	})
}
