// Package librdkafka gets librdkafka, as Python's confluent-kafka brings it, for
// tests of what consumers see.
//
// It promises one pinned version, installed once into the cache of servers by
// pip, and nothing outside of it. It needs python3 with pip.
package librdkafka

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// Version of confluent-kafka, and of the librdkafka in it.
const Version = "2.16.1"

// Python returns a Python, and the folder that must be in its PYTHONPATH for
// confluent_kafka to be there. An error says what to install.
func Python(ctx context.Context) (python, path string, err error) {
	if python, err = exec.LookPath("python3"); err != nil {
		return "", "", fmt.Errorf("librdkafka: %w (install python3 and python3-pip)", err)
	}
	version, err := exec.CommandContext(ctx, python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return "", "", fmt.Errorf("librdkafka: %s: %w", python, err)
	}
	path = filepath.Join(download.Cache(false), "confluent-kafka-"+Version+"-python"+strings.TrimSpace(string(version)))
	err = download.Once(ctx, path, func(tmp string) error {
		out, err := exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary", ":all:", "--target", tmp, "confluent-kafka=="+Version).CombinedOutput()
		if err != nil {
			return fmt.Errorf("pip: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("librdkafka: %w (install python3-pip, and let it reach its registry once)", err)
	}
	return python, path, nil
}
