package replication_test

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outrider-cdc/outrider/internal/harness/postgres"
	"github.com/outrider-cdc/outrider/relay/internal/replication"
)

// TLS with a verified certificate and scram work in replication mode; another
// authority, another name and a wrong password are refused.
func TestTLSAndScram(t *testing.T) {
	pg := postgres.StartWith(t, postgres.Options{Auth: postgres.AuthScram, TLS: true})
	other := postgres.StartWith(t, postgres.Options{TLS: true})
	with := func(change func(u *url.URL, q url.Values)) string {
		u, err := url.Parse(pg.URL())
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		change(u, q)
		u.RawQuery = q.Encode()
		return u.String()
	}
	if !strings.Contains(pg.URL(), "sslmode=verify-full") {
		t.Fatal("the server's URL does not verify")
	}
	var through pgconn.DialFunc
	try := func(url string) error {
		c, err := replication.Dial(t.Context(), replication.Config{URL: url, WALSenderTimeout: timeout, Dial: through})
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err = c.CreateSlot(t.Context(), "slot", false); err != nil {
			return err
		}
		if err := c.Start(t.Context(), "slot", "p", false); err != nil {
			return err
		}
		if err := c.Status(0, 0, true); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err = c.Receive() // a frame read below TLS
		return err
	}
	if err := try(pg.URL()); err != nil {
		t.Errorf("verify-full: %v", err)
	}
	if err := try(with(func(_ *url.URL, q url.Values) { q.Set("sslrootcert", other.CAFile()) })); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("another authority: %v, want a refusal", err)
	}
	through = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(pg.Port())))
	}
	if err := try(with(func(u *url.URL, _ url.Values) { u.Host = "127.0.0.2:" + u.Port() })); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("another name: %v, want a refusal", err)
	}
	through = nil
	err := try(with(func(u *url.URL, _ url.Values) { u.User = url.UserPassword(u.User.Username(), "wrong-one") }))
	if !isCode(err, "28P01") || strings.Contains(err.Error(), "wrong-one") {
		t.Errorf("wrong password: %v, want 28P01", err)
	}
	if err := try(with(func(_ *url.URL, q url.Values) { q.Set("sslmode", "disable"); q.Del("sslrootcert") })); !isCode(err, "28000") {
		t.Errorf("without TLS: %v, want 28000", err)
	}
}

// Deadlines that pass inside TLS records lose nothing: a row longer than the
// buffer comes whole, and so does what follows.
func TestDeadlinesInsideTLSRecords(t *testing.T) {
	pg := postgres.StartWith(t, postgres.Options{TLS: true})
	db, err := pgx.Connect(t.Context(), pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.Background()) }()
	c, err := replication.Dial(t.Context(), replication.Config{URL: pg.URL(), WALSenderTimeout: timeout, Dial: slowly})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, sql := range []string{"CREATE TABLE long (b bytea)", "CREATE PUBLICATION p FOR TABLE long"} {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.CreateSlot(t.Context(), "slot", false); err != nil {
		t.Fatal(err)
	}
	const size = 2 << 20
	if _, err := db.Exec(t.Context(), "INSERT INTO long VALUES (decode(repeat('6f7574', $1 / 3), 'hex')), ('end')", size); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), "slot", "p", false); err != nil {
		t.Fatal(err)
	}
	var rows [][]byte
	cut := 0
	for end := time.Now().Add(patience); len(rows) < 2 && time.Now().Before(end); {
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		f, err := c.Receive()
		switch {
		case replication.IsTimeout(err):
			cut++
		case err != nil:
			t.Fatalf("after %d deadlines: %v", cut, err)
		case f.Kind == replication.FrameWAL && f.Data[0] == 'I':
			rows = append(rows, bytes.Clone(f.Data[13:])) // behind relation, tuple, column and length
		}
	}
	if len(rows) != 2 || !bytes.Equal(rows[0], bytes.Repeat([]byte("out"), size/3)) || string(rows[1]) != "end" {
		t.Errorf("%d rows, of which not all are what was written", len(rows))
	}
	if cut < 10 {
		t.Errorf("only %d deadlines passed: too few to have cut a record", cut)
	}
}

// slowly dials a connection whose reads bring little, so that deadlines pass
// inside records.
func slowly(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &slowConn{Conn: conn}, err
}

type slowConn struct {
	net.Conn
	read int
}

// Read brings at most 1000 bytes, and each 100 of them it lets the deadline pass
// as a network does that has nothing: a record of TLS has up to 16 KiB.
func (s *slowConn) Read(p []byte) (int, error) {
	if s.read++; s.read%100 == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return s.Conn.Read(p[:min(len(p), 1000)])
}
