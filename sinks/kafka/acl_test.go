package kafka_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// Where IAM decides, ACLs decide nothing: the policy says the same in its words.
func TestPolicyForManagedKafka(t *testing.T) {
	cfg := config("b:9098")
	access := kafka.Access{Name: "shop", Topics: []string{"orders", "audit.*"}, DeadLetters: "dead"}
	if policy := cfg.Policy(access); policy != nil {
		t.Errorf("without IAM: %v", policy)
	}
	cfg.SASLMechanism, cfg.TLS = "aws-msk-iam", true
	text := func() string {
		b, err := json.Marshal(cfg.Policy(access))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const once = `"kafka-cluster:AlterTransactionalId"`
	plain := text()
	for _, want := range []string{
		`"kafka-cluster:Connect","kafka-cluster:WriteDataIdempotently"`, `topic/\u003ccluster\u003e/*/orders"`, `/audit.*"`, `/dead"`, `"kafka-cluster:WriteData"`,
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("nothing says %s: %s", want, plain)
		}
	}
	if strings.Contains(plain, once) || strings.Contains(plain, "ReadData") || strings.Contains(plain, "CreateTopic") {
		t.Errorf("more than at-least-once needs: %s", plain)
	}
	access.ExactlyOnce = true
	for _, want := range []string{once, `/outrider.shop.checkpoint.*"`, `"kafka-cluster:ReadData"`, `"kafka-cluster:CreateTopic"`, `"kafka-cluster:AlterGroup"`} {
		if !strings.Contains(text(), want) {
			t.Errorf("nothing says %s: %s", want, text())
		}
	}
}

// Names that follow from nothing in the configuration stay for the reader to fill in.
func TestPrincipals(t *testing.T) {
	access := kafka.Access{Name: "shop"}
	cfg := config("b:9092")
	for mechanism, want := range map[string]string{"": "'User:ANONYMOUS'", "oauthbearer": "'User:<subject of the token>'"} {
		cfg.SASLMechanism = mechanism
		if got := cfg.ACLs(access)[0]; !strings.Contains(got, want) || !strings.HasSuffix(got, "--topic '*'") {
			t.Errorf("%q: %s", mechanism, got)
		}
	}
	access.Principal, access.Prefix = "User:me", "shop."
	if got := cfg.ACLs(access)[0]; !strings.Contains(got, "'User:me'") || !strings.HasSuffix(got, "--topic 'shop.' --resource-pattern-type prefixed") {
		t.Error(got)
	}
}
