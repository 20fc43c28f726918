package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// access is what a client needs to get in over TCP.
type access struct {
	password string
	caFile   string
}

func (a access) user() *url.Userinfo {
	if a.password == "" {
		return url.User("postgres")
	}
	return url.UserPassword("postgres", a.password)
}

func (a access) query() url.Values {
	if a.caFile == "" {
		return url.Values{"sslmode": {"disable"}}
	}
	return url.Values{"sslmode": {"verify-full"}, "sslrootcert": {a.caFile}}
}

// URL connects the superuser over TCP to the database postgres; to one that is
// made for this Server if it is shared.
func (s *Server) URL() string {
	if s.shared != nil {
		return s.shared.url.String()
	}
	return s.DatabaseURL("postgres")
}

// DatabaseURL is [Server.URL] with another database.
func (s *Server) DatabaseURL(database string) string {
	if s.shared != nil {
		return s.shared.database(database)
	}
	u := url.URL{Scheme: "postgres", User: s.access.user(), Host: "127.0.0.1:" + strconv.Itoa(s.port), Path: "/" + database}
	u.RawQuery = s.access.query().Encode()
	return u.String()
}

// SocketURL connects the superuser over the Unix socket, without a password,
// to the database postgres. A shared server has its URL only.
func (s *Server) SocketURL() string {
	if s.shared != nil {
		return s.URL()
	}
	q := url.Values{"host": {s.folder.Path()}, "port": {strconv.Itoa(s.port)}}
	return "postgres://postgres@/postgres?" + q.Encode()
}

// CAFile is the certificate that verifies the server; "" without TLS.
func (s *Server) CAFile() string { return s.access.caFile }

// restrict writes pg_hba.conf and the certificate, before the first start.
func (s *Server) restrict(o *Options) error {
	if o.TLS {
		if err := s.certify(); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	lines := o.HBA
	if lines == nil {
		kind, method := "host", "trust"
		if o.TLS {
			kind = "hostssl"
		}
		if o.Auth == AuthScram {
			method = "scram-sha-256"
		}
		lines = []string{
			"local all all trust", "local replication all trust",
			kind + " all all 127.0.0.1/32 " + method, kind + " replication all 127.0.0.1/32 " + method,
		}
	}
	if o.Auth == AuthScram {
		s.access.password = rand.Text()
	}
	return s.write("pg_hba.conf", []byte(strings.Join(lines, "\n")+"\n"))
}

// setPassword comes after the first start, over the socket, which is open.
func (s *Server) setPassword(ctx context.Context) error {
	if s.access.password == "" {
		return nil
	}
	c, err := pgconn.Connect(ctx, s.SocketURL())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := c.Exec(ctx, "ALTER ROLE postgres PASSWORD '"+s.access.password+"'").Close(); err != nil {
		return fmt.Errorf("set the password: %w", err)
	}
	return nil
}

// certify gives the server a certificate that is its own authority.
func (s *Server) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "outrider test server"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := s.write("server.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	if err := s.write("server.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return err
	}
	s.access.caFile = filepath.Join(s.Dir(), "server.crt")
	return s.Set("ssl=on")
}
