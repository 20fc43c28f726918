// Package librdkafka gets librdkafka, as Python's confluent-kafka brings it, for
// tests of what consumers see.
//
// It promises one pinned version, installed once into the cache of servers by
// pip, and nothing outside of it. It needs python3 with pip.
package librdkafka

import (
	"context"
	"fmt"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// Version of confluent-kafka, and of the librdkafka in it.
const Version = "2.16.1"

// Python is [download.Python] with confluent_kafka.
func Python(ctx context.Context) (python, path string, err error) {
	if python, path, err = download.Python(ctx, "confluent-kafka=="+Version); err != nil {
		return "", "", fmt.Errorf("librdkafka: %w", err)
	}
	return python, path, nil
}
