package securitytest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
)

// aclTool puts kafka-acls.sh of Kafka into a folder. It talks to the broker past
// the listener that the commands name, as an administrator would.
func (b *brokers) aclTool() (folder string) {
	b.t.Helper()
	jars := filepath.Join(download.Cache(false), "kafka-tools-"+kafka.Version)
	err := download.Once(b.t.Context(), jars, func(tmp string) error {
		return download.MavenProject(b.t.Context(), tmp, "org.apache.kafka:kafka-tools:"+kafka.Version)
	})
	if err != nil {
		harness.Missing(b.t, fmt.Errorf("no tools of Kafka: %w", err))
	}
	java, _ := b.Java()
	folder = b.t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nshift 2\nexec %s -XX:TieredStopAtLevel=1 -cp '%s/*' org.apache.kafka.tools.AclCommand --bootstrap-server %s \"$@\"\n", java, jars, b.Direct()[0])
	if err := os.WriteFile(filepath.Join(folder, "kafka-acls.sh"), []byte(script), 0o700); err != nil {
		b.t.Fatal(err)
	}
	return folder
}

// What "outrider config --acls" prints is enough, and a permission less is not.
// The role of the database gets what it prints in all tests of Postgres.
func TestPrintedACLsAreEnough(t *testing.T) {
	b := newBrokers(t, "SSL", "listener.name.client.ssl.client.auth=required",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS")
	tool := b.aclTool()
	for _, delivery := range []string{"at-least-once", "exactly-once"} {
		t.Run(delivery, func(t *testing.T) {
			url := outbox(t)
			name := "relay-" + delivery
			cert, key := b.ca.issue(name).files(t)
			environ := b.environ(url, "OUTRIDER_DELIVERY="+delivery, "OUTRIDER_TOPICS_ALLOWED="+b.topic,
				"OUTRIDER_KAFKA_TLS_CERT_FILE="+cert, "OUTRIDER_KAFKA_TLS_KEY_FILE="+key)
			commands, told, err := run(t, environ, "config", "--acls=kafka")
			if err != nil {
				t.Fatal(err, told)
			}
			principal := "User:CN=" + name + ",O=Outrider"
			if !strings.Contains(commands, "'"+principal+"'") {
				t.Errorf("the principal is not %s:\n%s", principal, commands)
			}
			sh := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
			sh.Env = append(os.Environ(), "PATH="+tool+":"+os.Getenv("PATH"))
			if out, err := sh.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p := start(t, environ...)
			p.awaits("leader", "")
			b.relays(p, url)
			p.kill(15)
			if strings.Contains(p.stderr.String(), "cannot be read") {
				t.Error("settings of a topic could not be read")
			}

			without := map[string]*kadm.ACLBuilder{"writing the topic": kadm.NewACLs().Topics(b.topic).Operations(kadm.OpWrite)}
			if delivery == "exactly-once" {
				own := strings.TrimPrefix(environ[1], "OUTRIDER_NAME=")
				without["reading checkpoints"] = kadm.NewACLs().Topics("outrider." + own + ".checkpoint.").Operations(kadm.OpRead)
				without["writing checkpoints"] = kadm.NewACLs().Topics("outrider." + own + ".checkpoint.").Operations(kadm.OpWrite)
				without["its transactional id"] = kadm.NewACLs().TransactionalIDs("outrider." + own + ".").Operations(kadm.OpWrite)
			}
			for what, acl := range without {
				t.Log("without " + what)
				acl = acl.ResourcePatternType(kadm.ACLPatternAny).Allow(principal).AllowHosts("*")
				gone, err := b.admin.DeleteACLs(t.Context(), acl)
				if err != nil || len(gone) != 1 || len(gone[0].Deleted) != 1 {
					t.Fatal(err, gone)
				}
				write(t, url, b.topic)
				refused(t, environ, "kafka_authorization", "AUTHORIZATION_FAILED")
				d := gone[0].Deleted[0]
				back := kadm.NewACLs().ResourcePatternType(d.Pattern).Allow(principal).AllowHosts("*").Operations(d.Operation)
				if d.Type.String() == "TRANSACTIONAL_ID" {
					back = back.TransactionalIDs(d.Name)
				} else {
					back = back.Topics(d.Name)
				}
				if made, err := b.admin.CreateACLs(t.Context(), back); err != nil || made[0].Err != nil {
					t.Fatal(err, made)
				}
			}
		})
	}
}

// A row can name any topic that Kafka would take. Those that are not allowed get nothing.
func TestTopicsAllowed(t *testing.T) {
	b := newBrokers(t, "SSL")
	forbidden := b.Topic(t, 1, nil)
	dead := b.Topic(t, 1, nil)
	url := outbox(t)
	backlog := write(t, url, forbidden)
	environ := b.environ(url, "OUTRIDER_TOPICS_ALLOWED=elsewhere,"+b.topic[:len(b.topic)-2]+"*", "OUTRIDER_DEAD_LETTER_TOPIC="+dead)
	p := start(t, environ...)
	s := p.awaits("halted", "poison")
	if !strings.Contains(s.Error, "is not in OUTRIDER_TOPICS_ALLOWED") || !strings.Contains(s.Hint, "OUTRIDER_TOPICS_ALLOWED=elsewhere,") {
		t.Errorf("status %+v", s)
	}
	p.kill(15)
	p = start(t, append(environ, "OUTRIDER_POISON=dead-letter")...)
	b.arrives(p, dead, backlog)
	streamed := write(t, url, forbidden)
	b.relays(p, url) // behind it
	b.arrives(p, dead, streamed)
	offsets, err := b.admin.ListEndOffsets(t.Context(), forbidden)
	if end, ok := offsets.Lookup(forbidden, 0); err != nil || !ok || end.Offset != 0 {
		t.Errorf("the forbidden topic has %d records: %v", end.Offset, err)
	}
	if strings.Contains(p.get("/metrics"), forbidden) {
		t.Error("a name that a row made up is a label of a metric")
	}
	p.kill(15)
}
