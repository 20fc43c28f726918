package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/internal/migrate/format"
	"github.com/outrider-cdc/outrider/outbox/migrations"
	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// Values of --acls.
const (
	aclsAll   = "all"
	aclsKafka = "kafka"
	aclsSQL   = "sql"
)

// writeACLs prints what the relay of this configuration must be allowed, and
// nothing else: it asks neither server.
func writeACLs(p process, which, principal string) error {
	s, err := load(p.environ)
	if err != nil {
		return err
	}
	var b strings.Builder
	if which != aclsSQL {
		if s.Process.Sink != "kafka" {
			return misuse(errors.New("--acls: the sink is not kafka; --acls=sql prints the grants of the database"))
		}
		access := kafka.Access{
			Name: s.Name, Topics: s.TopicsAllowed, Prefix: s.TopicPrefix, ExactlyOnce: s.Delivery == relay.ExactlyOnce, Principal: principal,
		}
		if s.Poison != relay.PoisonSkip { // halted is answered with divert
			access.DeadLetters = s.DeadLetterTopic
		}
		writeKafkaACLs(&b, s.Kafka, access, which == aclsAll)
	}
	if which != aclsKafka {
		if err := s.writeGrants(&b, which == aclsAll); err != nil {
			return err
		}
	}
	_, err = io.WriteString(p.stdout, b.String())
	return err
}

func writeKafkaACLs(b *strings.Builder, cfg kafka.Config, access kafka.Access, head bool) {
	if head {
		b.WriteString("# Kafka, by an administrator of the cluster (--acls=kafka prints only this)\n")
	}
	if len(access.Topics) == 0 && access.Prefix == "" {
		b.WriteString("# OUTRIDER_TOPICS_ALLOWED is not set: rows may go to any topic, and so may the relay\n")
	}
	if policy := cfg.Policy(access); policy != nil {
		text, err := json.MarshalIndent(policy, "", "  ")
		if err != nil { // a tree of strings
			panic(err)
		}
		b.Write(append(text, '\n'))
	} else {
		for _, command := range cfg.ACLs(access) {
			b.WriteString(command + "\n")
		}
	}
	if head {
		b.WriteString("\n")
	}
}

// writeGrants prints the SQL for the role of the database's address.
func (s *settings) writeGrants(b *strings.Builder, head bool) error {
	url, err := s.DatabaseURL.Reveal()
	if err != nil {
		return withCode(exitConfig, err)
	}
	parsed, err := pgx.ParseConfig(url)
	if err != nil { // which repeats parts of the address
		return withCode(exitConfig, errors.New(prefix+"DATABASE_URL cannot be parsed"))
	}
	if parsed.User == "" {
		return misuse(errors.New("--acls: " + prefix + "DATABASE_URL names no user to grant to"))
	}
	role := pgx.Identifier{parsed.User}.Sanitize()
	grants, err := format.One(format.Options{
		Format: "sql", Names: migrations.Names{Schema: s.Schema, Publication: s.Publication},
		Roles: []migrations.Role{{Privilege: migrations.RelayRole, Name: parsed.User}}, Only: []migrations.Privilege{migrations.RelayRole},
	})
	if err != nil {
		return fmt.Errorf("print grants: %w", err)
	}
	if head {
		b.WriteString("-- Postgres, by an administrator in the database of the outbox, after outrider migrate up (--acls=sql prints only this)\n")
	}
	fmt.Fprintf(b, "ALTER ROLE %[1]s LOGIN REPLICATION; -- on RDS and Aurora: GRANT rds_replication TO %[1]s;\n", role)
	fmt.Fprintf(b, "GRANT CONNECT ON DATABASE %s TO %s;\n", pgx.Identifier{parsed.Database}.Sanitize(), role)
	b.WriteString(grants)
	return nil
}
