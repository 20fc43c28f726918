package kafka

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/outrider-cdc/outrider/internal/secret"
)

// envPrefix is how the variables of Config are called where they are told to an operator.
const envPrefix = "OUTRIDER_KAFKA_"

// Config says which brokers and how. Names are relative to a prefix that the
// composition root gives.
type Config struct {
	Brokers            []string    `env:"BROKERS" doc:"Brokers to start from, host:port, separated by commas. Required with the kafka sink."`
	TLS                bool        `env:"TLS" envDefault:"false" doc:"Connect with TLS."`
	TLSCAFile          string      `env:"TLS_CA_FILE" doc:"PEM file with the authorities to trust instead of the system's. Read again at each connect."`
	TLSCertFile        string      `env:"TLS_CERT_FILE" doc:"PEM file with the client's certificate. Read again at each connect."`
	TLSKeyFile         string      `env:"TLS_KEY_FILE" doc:"PEM file with the key of the client's certificate. Read again at each connect."`
	TLSServerName      string      `env:"TLS_SERVER_NAME" doc:"Name to expect in the brokers' certificates. Default: the host connected to."`
	SASLMechanism      string      `env:"SASL_MECHANISM" doc:"plain, scram-sha-256, scram-sha-512, oauthbearer or aws-msk-iam. Default: no SASL."`
	SASLUsername       string      `env:"SASL_USERNAME" doc:"User for plain and scram."`
	SASLPassword       secret.Text `env:"SASL_PASSWORD" doc:"Password for plain and scram. The file of SASL_PASSWORD_FILE is read again at each connect."`
	SASLAllowPlaintext bool        `env:"SASL_ALLOW_PLAINTEXT" envDefault:"false" doc:"Allow plain, oauthbearer and aws-msk-iam without TLS, which send a password, token or signature in clear, and a token endpoint without https."`

	SASLOAuthToken        secret.Text       `env:"SASL_OAUTH_TOKEN" doc:"oauthbearer: the token. Its file, such as one that Kubernetes projects, is read again at each connect and whenever the brokers ask for a new login."`
	SASLOAuthTokenURL     string            `env:"SASL_OAUTH_TOKEN_URL" doc:"oauthbearer, instead of a token: endpoint that gives one for client credentials (RFC 6749, 4.4). Asked at each login."`
	SASLOAuthClientID     string            `env:"SASL_OAUTH_CLIENT_ID" doc:"Client for SASL_OAUTH_TOKEN_URL."`
	SASLOAuthClientSecret secret.Text       `env:"SASL_OAUTH_CLIENT_SECRET" doc:"Its secret. The file of SASL_OAUTH_CLIENT_SECRET_FILE is read again at each login."`
	SASLOAuthScope        string            `env:"SASL_OAUTH_SCOPE" doc:"Scopes to ask for, separated by spaces."`
	SASLOAuthAudience     string            `env:"SASL_OAUTH_AUDIENCE" doc:"Parameter audience of the request, which some endpoints want."`
	SASLOAuthCAFile       string            `env:"SASL_OAUTH_CA_FILE" doc:"PEM file with the authorities to trust for the token endpoint instead of the system's. Read again at each login."`
	SASLOAuthExtensions   map[string]string `env:"SASL_OAUTH_EXTENSIONS" doc:"Extensions to send with the token (RFC 7628), name:value,name:value, such as logicalCluster and identityPoolId of Confluent Cloud."`

	Compression        string        `env:"COMPRESSION" envDefault:"lz4" doc:"Compression of batches: none, gzip, snappy, lz4 or zstd."`
	Linger             time.Duration `env:"LINGER" envDefault:"0s" doc:"How long a batch waits for more. 0 still batches whatever comes while the broker is busy."`
	CreateTopics       bool          `env:"CREATE_TOPICS" envDefault:"false" doc:"Create topics that are missing. Otherwise their messages wait until somebody does."`
	CreatePartitions   int32         `env:"CREATE_PARTITIONS" envDefault:"-1" doc:"Partitions of a created topic; -1 is the brokers' default."`
	CreateReplication  int16         `env:"CREATE_REPLICATION" envDefault:"-1" doc:"Replication factor of a created topic; -1 is the brokers' default."`
	TransactionTimeout time.Duration `env:"TRANSACTION_TIMEOUT" envDefault:"4s" doc:"Exactly-once: when the brokers may give up a transaction that a crashed relay left open and no relay took over. They look every 10s (transaction.abort.timed.out.transaction.cleanup.interval.ms), so readers of committed records wait that much longer."`
}

// With the default, readers wait at most 14 s for a relay that crashed and did
// not come back: the brokers look for transactions over their time every 10 s.
const (
	minTransactionTimeout     = time.Second
	defaultTransactionTimeout = 4 * time.Second
	maxTransactionTimeout     = 15 * time.Second
)

// Validate returns everything that is wrong with c, joined; nil if nothing is.
// It reads no file and asks no broker.
func (c Config) Validate() error {
	var errs []error
	wrong := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf(envPrefix+name+": "+format, args...))
	}
	if len(c.Brokers) == 0 {
		wrong("BROKERS", "is required")
	}
	for _, b := range c.Brokers {
		if err := checkAddress(b); err != nil {
			wrong("BROKERS", "%w", err)
		}
	}
	if _, ok := codec(c.Compression); !ok {
		wrong("COMPRESSION", "%q is none of none, gzip, snappy, lz4, zstd", c.Compression)
	}
	if c.Linger < 0 || c.Linger > time.Minute {
		wrong("LINGER", "%s is not between 0s and 1m", c.Linger)
	}
	if c.CreatePartitions == 0 || c.CreatePartitions < -1 {
		wrong("CREATE_PARTITIONS", "%d is neither -1 nor a number of partitions", c.CreatePartitions)
	}
	if c.CreateReplication == 0 || c.CreateReplication < -1 {
		wrong("CREATE_REPLICATION", "%d is neither -1 nor a replication factor", c.CreateReplication)
	}
	if c.TransactionTimeout != 0 && (c.TransactionTimeout < minTransactionTimeout || c.TransactionTimeout > maxTransactionTimeout) {
		wrong("TRANSACTION_TIMEOUT", "%s is not between %s and %s", c.TransactionTimeout, minTransactionTimeout, maxTransactionTimeout)
	}
	c.validateTLS(wrong)
	c.validateSASL(wrong)
	return errors.Join(errs...)
}

func checkAddress(address string) error {
	switch {
	case address == "":
		return errors.New("has an empty entry")
	case strings.Contains(address, "://"):
		return fmt.Errorf("%q: give host:port, without a scheme", address)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port: %w", address, err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q: %q is not a port", address, port)
	}
	return nil
}

// codec returns the compression called name.
func codec(name string) (kgo.CompressionCodec, bool) {
	switch name {
	case "none":
		return kgo.NoCompression(), true
	case "gzip":
		return kgo.GzipCompression(), true
	case "snappy":
		return kgo.SnappyCompression(), true
	case "lz4":
		return kgo.Lz4Compression(), true
	case "zstd":
		return kgo.ZstdCompression(), true
	}
	return kgo.CompressionCodec{}, false
}
