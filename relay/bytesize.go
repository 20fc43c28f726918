package relay

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes, written as 67108864 or 64MiB.
type ByteSize int64

// UnmarshalText implements [encoding.TextUnmarshaler], for package env.
func (b *ByteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is no number of bytes: write 67108864 or 64MiB (KiB, MiB, GiB)", text)
	}
	*b = ByteSize(n * unit)
	return nil
}

// String is the shortest exact form.
func (b ByteSize) String() string {
	for _, u := range []struct {
		factor ByteSize
		suffix string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if b != 0 && b%u.factor == 0 {
			return strconv.FormatInt(int64(b/u.factor), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
