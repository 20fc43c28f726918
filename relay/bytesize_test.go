package relay_test

import (
	"testing"

	"github.com/outrider-cdc/outrider/relay"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]relay.ByteSize{"0": 0, "1000": 1000, "64MiB": 64 << 20, "1536KiB": 1536 << 10, "2GiB": 2 << 30} {
		var b relay.ByteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want || b.String() != text {
			t.Errorf("%s: %d (%s), error %v; want %d", text, b, b, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "64MB", "-1", "1.5GiB", "9999999999GiB", "64 MiB"} {
		var b relay.ByteSize
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %d", text, b)
		}
	}
}
