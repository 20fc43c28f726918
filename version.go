package main

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// Set by the linker: -ldflags "-X main.version=v1.2.3 -X main.revision=0123abc". Nothing else writes them.
var (
	version  string
	revision string //nolint:gochecknoglobals // the linker sets variables only; version the linter knows
)

// build is what is known of this binary.
type build struct{ version, revision, golang, platform string }

// thisBuild takes from the binary what the linker was not told.
func thisBuild() build {
	b := build{version: version, revision: revision, golang: runtime.Version(), platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.version = cmp.Or(b.version, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.revision = cmp.Or(b.revision, s.Value)
			}
		}
	}
	b.version = cmp.Or(b.version, "(devel)")
	b.revision = cmp.Or(b.revision, "unknown")
	return b
}
