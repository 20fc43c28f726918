//go:build !linux

package replication

import (
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// watched leaves the defaults of the net package, which sends keep-alives.
func watched(dial pgconn.DialFunc, _ time.Duration) pgconn.DialFunc { return dial }
