package kafka_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

func TestConfigFromEnvironment(t *testing.T) {
	cfg, err := env.ParseAsWithOptions[kafka.Config](env.Options{Prefix: "KAFKA_", Environment: map[string]string{
		"KAFKA_BROKERS": "a:9092,b:9093", "KAFKA_TLS": "true", "KAFKA_SASL_MECHANISM": "scram-sha-512",
		"KAFKA_SASL_USERNAME": "app", "KAFKA_SASL_PASSWORD": "pass", "KAFKA_LINGER": "5ms",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	password, _ := cfg.SASLPassword.Reveal()
	if len(cfg.Brokers) != 2 || cfg.Compression != "lz4" || cfg.Linger != 5*time.Millisecond || password != "pass" ||
		cfg.CreateTopics || cfg.CreatePartitions != -1 || cfg.CreateReplication != -1 {
		t.Errorf("%+v", cfg)
	}
}

func TestConfigTellsEverythingAtOnce(t *testing.T) {
	cfg := kafka.Config{
		Brokers: []string{"kafka://b:9092", "b", "b:0", ""}, TLSCAFile: "ca", TLSCertFile: "cert", SASLMechanism: "oauth",
		Compression: "brotli", Linger: -1, CreatePartitions: 0, CreateReplication: -2,
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{
		`BROKERS: "kafka://b:9092"`, `BROKERS: "b"`, `BROKERS: "b:0"`, "empty entry", "TLS_CA_FILE: is set", "TLS_CERT_FILE: a certificate",
		`SASL_MECHANISM: "oauth"`, `COMPRESSION: "brotli"`, "LINGER", "CREATE_PARTITIONS", "CREATE_REPLICATION",
	} {
		if !strings.Contains(err.Error(), "OUTRIDER_KAFKA_") || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q:\n%v", want, err)
		}
	}
	if _, err := kafka.New(cfg, kafka.Options{}); err == nil {
		t.Error("a sink came of it")
	}
	if err := (kafka.Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "BROKERS: is required") {
		t.Errorf("without brokers: %v", err)
	}
}

func TestPasswordInClear(t *testing.T) {
	cfg := config("b:9092")
	cfg.SASLMechanism, cfg.SASLUsername, cfg.SASLPassword = "plain", "app", secret.New("pass")
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "OUTRIDER_KAFKA_SASL_ALLOW_PLAINTEXT=true") {
		t.Errorf("plain without TLS: %v", err)
	}
	for _, mend := range []func(*kafka.Config){
		func(c *kafka.Config) { c.TLS = true },
		func(c *kafka.Config) { c.SASLAllowPlaintext = true },
		func(c *kafka.Config) { c.SASLMechanism = "scram-sha-256" },
	} {
		mended := cfg
		mend(&mended)
		if err := mended.Validate(); err != nil {
			t.Error(err)
		}
	}
	cfg.SASLMechanism = ""
	if err := cfg.Validate(); err == nil {
		t.Error("a password without a mechanism is silently unused")
	}
}

func TestEveryVariableIsDocumented(t *testing.T) {
	for f := range reflect.TypeFor[kafka.Config]().Fields() {
		if f.Tag.Get("env") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s lacks a name or a text", f.Name)
		}
	}
}
