package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

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
		pool, err := authorities("TLS_CA_FILE", c.TLSCAFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = pool
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

// authorities reads the file that the variable names. The error is a [relay.Halt].
func authorities(variable, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, tlsFileHalt(variable, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, tlsFileHalt(variable, errors.New(file+": no certificate in PEM form"))
	}
	return pool, nil
}

func tlsFileHalt(name string, err error) error {
	return &relay.Halt{
		Reason: "kafka_tls_files",
		Err:    fmt.Errorf("read %s%s: %w", envPrefix, name, err),
		Hints:  []relay.Hint{{Say: "mend the file, which is read at each connect, or name another", Env: envPrefix + name + "=<path>"}},
	}
}
