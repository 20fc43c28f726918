package kafka_test

import (
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// Each mechanism takes what belongs to it and nothing else, and nothing that
// others could read and use on the way unless a variable says so.
func TestSettingsOfMechanisms(t *testing.T) {
	text := secret.New("planted-secret")
	endpoint := func(c *kafka.Config) {
		c.SASLMechanism, c.SASLOAuthTokenURL, c.SASLOAuthClientID, c.SASLOAuthClientSecret = "oauthbearer", "https://idp.example.com/token", "app", text
	}
	for name, c := range map[string]struct {
		set  func(*kafka.Config)
		want string // "": it is fine
	}{
		"scram":             {func(c *kafka.Config) { c.SASLMechanism, c.SASLUsername, c.SASLPassword = "scram-sha-512", "app", text }, ""},
		"no user":           {func(c *kafka.Config) { c.SASLMechanism, c.SASLPassword = "scram-sha-512", text }, "SASL_USERNAME: is required"},
		"no password":       {func(c *kafka.Config) { c.SASLMechanism, c.SASLUsername = "scram-sha-512", "app" }, "SASL_PASSWORD: is required"},
		"aws":               {func(c *kafka.Config) { c.SASLMechanism = "aws-msk-iam" }, ""},
		"aws with password": {func(c *kafka.Config) { c.SASLMechanism, c.SASLPassword = "aws-msk-iam", text }, "are not for SASL_MECHANISM=aws-msk-iam"},
		"aws in clear":      {func(c *kafka.Config) { c.SASLMechanism, c.TLS = "aws-msk-iam", false }, "SASL_ALLOW_PLAINTEXT=true"},
		"token":             {func(c *kafka.Config) { c.SASLMechanism, c.SASLOAuthToken = "oauthbearer", text }, ""},
		"token in clear": {func(c *kafka.Config) {
			c.SASLMechanism, c.SASLOAuthToken, c.TLS = "oauthbearer", text, false
		}, "SASL_ALLOW_PLAINTEXT=true"},
		"no token":           {func(c *kafka.Config) { c.SASLMechanism = "oauthbearer" }, "SASL_OAUTH_TOKEN_URL: set either"},
		"token of no one":    {func(c *kafka.Config) { c.SASLOAuthToken = text }, "SASL_MECHANISM: must be oauthbearer"},
		"token and client":   {func(c *kafka.Config) { endpoint(c); c.SASLOAuthTokenURL, c.SASLOAuthToken = "", text }, "have no use"},
		"token and endpoint": {func(c *kafka.Config) { endpoint(c); c.SASLOAuthToken = text }, "set either"},
		"endpoint":           {endpoint, ""},
		"no client":          {func(c *kafka.Config) { endpoint(c); c.SASLOAuthClientID = "" }, "SASL_OAUTH_CLIENT_ID: is required"},
		"no secret":          {func(c *kafka.Config) { endpoint(c); c.SASLOAuthClientSecret = secret.Text{} }, "SASL_OAUTH_CLIENT_SECRET: is required"},
		"endpoint in clear":  {func(c *kafka.Config) { endpoint(c); c.SASLOAuthTokenURL = "http://idp.example.com/token" }, "SASL_ALLOW_PLAINTEXT=true"},
		"endpoint with user": {func(c *kafka.Config) { endpoint(c); c.SASLOAuthTokenURL = "https://app:planted-secret@idp/token" }, "holds a user"},
		"no endpoint":        {func(c *kafka.Config) { endpoint(c); c.SASLOAuthTokenURL = "planted-secret" }, "is not the address of a token endpoint"},
	} {
		cfg := config("b:9092")
		cfg.TLS = true
		c.set(&cfg)
		err := cfg.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "planted-secret"):
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}
