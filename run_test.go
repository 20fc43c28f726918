package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is a running outrider whose log is read line by line.
type binary struct {
	cmd *exec.Cmd
	log *bufio.Scanner
	all bytes.Buffer // everything that was logged so far
}

// startBinary starts outrider run with these variables and no others of ours.
func startBinary(t *testing.T, vars ...string) *binary {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // the deadline of every wait below
	t.Cleanup(cancel)
	b := &binary{cmd: exec.CommandContext(ctx, "outrider", "run")}
	race, quick := quickExit()
	b.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), race + "=" + quick}, vars...)
	stderr, err := b.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.log = bufio.NewScanner(io.TeeReader(stderr, &b.all))
	t.Cleanup(func() { _ = b.cmd.Process.Kill(); _ = b.cmd.Wait() })
	return b
}

// await reads the log until a line with that message.
func (b *binary) await(t *testing.T, message string) map[string]any {
	t.Helper()
	for b.log.Scan() {
		var line map[string]any
		if err := json.Unmarshal(b.log.Bytes(), &line); err != nil {
			t.Fatalf("not JSON: %s", b.log.Text())
		}
		if line["msg"] == message {
			return line
		}
	}
	t.Fatalf("the log ended without %q:\n%s", message, b.all.String())
	return nil
}

// wait reads the log to its end and returns the exit code.
func (b *binary) wait() int {
	for b.log.Scan() {
		continue // b.all has it
	}
	_ = b.cmd.Wait()
	return b.cmd.ProcessState.ExitCode()
}

// refusing is the address of a port on which nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// outrider runs a command to its end with HTTP_ADDR set.
func outrider(t *testing.T, httpAddr string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "outrider", args...)
	cmd.Env = append(os.Environ(), "OUTRIDER_HTTP_ADDR="+httpAddr)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRunIsAliveWhilePostgresIsAway(t *testing.T) {
	b := startBinary(t, "OUTRIDER_DATABASE_URL=postgres://app:planted-secret@"+refusing(t)+"/shop",
		"OUTRIDER_SINK=stdout", "OUTRIDER_HTTP_ADDR=127.0.0.1:0", "OUTRIDER_SLOOT=planted-secret", "OUTRIDER_LOG_LEVEL=DEBUG")
	if line := b.await(t, "unknown variable"); line["name"] != "OUTRIDER_SLOOT" || line["nearest"] != "OUTRIDER_SLOT" {
		t.Errorf("warning is %v", line)
	}
	addr, _ := b.await(t, "starting")["http_addr"].(string)
	b.await(t, "waiting") // for the server

	if out, err := outrider(t, addr, "healthcheck"); err != nil {
		t.Errorf("healthcheck: %v\n%s", err, out)
	}
	out, err := outrider(t, addr, "status")
	if err != nil || !strings.Contains(out, "\nslot: outrider_shop\n") || !strings.HasPrefix(out, "role: waiting\n") {
		t.Errorf("status: %v\n%s", err, out)
	}
	for path, want := range map[string]string{
		"/livez": "ok\n", "/readyz": "ok\n", "/status": `"slot": "outrider_shop"`, "/metrics": "\noutrider_build_info{",
	} {
		if body := fetch(t, addr, path); !strings.Contains(body, want) || strings.Contains(body, "planted-secret") {
			t.Errorf("%s answers %s", path, body)
		}
	}

	second := startBinary(t, "OUTRIDER_DATABASE_URL=postgres://localhost/shop", "OUTRIDER_SINK=stdout", "OUTRIDER_HTTP_ADDR="+addr)
	if code := second.wait(); code != exitConfig || !strings.Contains(second.all.String(), "hint: something else") {
		t.Errorf("port in use: exit code %d\n%s", code, second.all.String())
	}

	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.await(t, "stopped")
	if code := b.wait(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	if strings.Contains(b.all.String(), "planted-secret") {
		t.Errorf("the log tells a secret:\n%s", b.all.String())
	}
}

func TestMemoryLimit(t *testing.T) {
	for given, want := range map[string]string{"": "1.00663296e+08", "200MiB": "2.097152e+08"} { // budget 64 MiB + 32 MiB
		b := startBinary(t, "OUTRIDER_DATABASE_URL=postgres://"+refusing(t)+"/shop", "OUTRIDER_SINK=stdout",
			"OUTRIDER_HTTP_ADDR=127.0.0.1:0", "GOMEMLIMIT="+given)
		addr, _ := b.await(t, "starting")["http_addr"].(string)
		if want := "\ngo_gc_gomemlimit_bytes " + want + "\n"; !strings.Contains(fetch(t, addr, "/metrics"), want) {
			t.Errorf("GOMEMLIMIT=%s: /metrics lacks %s", given, want)
		}
	}
}

func fetch(t *testing.T, addr, path string) string {
	t.Helper()
	response, err := get(t.Context(), addr, path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
