package main

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3". Nothing else writes it.
var version string

// build is what is known of this binary.
type build struct{ version, revision, golang, platform string }

// thisBuild takes from the binary what the linker was not told.
func thisBuild() build {
	b := build{version: version, golang: runtime.Version(), platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.version = cmp.Or(b.version, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.revision = s.Value
			}
		}
	}
	b.version = cmp.Or(b.version, "(devel)")
	b.revision = cmp.Or(b.revision, "unknown")
	return b
}
