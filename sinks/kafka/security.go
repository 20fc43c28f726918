package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/outrider-cdc/outrider/relay"
)

// tlsConfig reads the files of c, so that rotated ones count from the next
// connection on. The error is a [relay.Halt].
func (c Config) tlsConfig(address string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		cfg.ServerName = host
	}
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, tlsFileHalt("TLS_CA_FILE", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, tlsFileHalt("TLS_CA_FILE", errors.New(c.TLSCAFile+": no certificate in PEM form"))
		}
	}
	if c.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, tlsFileHalt("TLS_CERT_FILE", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

func tlsFileHalt(name string, err error) error {
	return &relay.Halt{
		Reason: "kafka_tls_files",
		Err:    fmt.Errorf("read %s%s: %w", envPrefix, name, err),
		Hints:  []relay.Hint{{Say: "mend the file, which is read at each connect, or name another", Env: envPrefix + name + "=<path>"}},
	}
}

// mechanism returns how to log in, nil for not at all. The password is read at
// each connect, and again where the broker asks for it during a connection's
// life (KIP-368).
func (s *Sink) mechanism() sasl.Mechanism {
	password := func() (string, error) {
		p, err := s.cfg.SASLPassword.Reveal()
		if err != nil {
			return "", &relay.Halt{
				Reason: "kafka_authentication", Err: err,
				Hints: []relay.Hint{{Say: "mend the file, which is read at each connect, or name another", Env: envPrefix + "SASL_PASSWORD_FILE=<path>"}},
			}
		}
		return p, nil
	}
	scrammed := func(context.Context) (scram.Auth, error) {
		p, err := password()
		return scram.Auth{User: s.cfg.SASLUsername, Pass: p}, err
	}
	switch s.cfg.SASLMechanism {
	case mechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := password()
			return plain.Auth{User: s.cfg.SASLUsername, Pass: p}, err
		})
	case mechanismSCRAM256:
		return scram.Sha256(scrammed)
	case mechanismSCRAM512:
		return scram.Sha512(scrammed)
	}
	return nil
}
