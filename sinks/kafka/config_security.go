package kafka

import (
	"net/url"
	"slices"
	"strings"
)

// Values of Config.SASLMechanism.
const (
	mechanismPlain    = "plain"
	mechanismSCRAM256 = "scram-sha-256"
	mechanismSCRAM512 = "scram-sha-512"
	mechanismOAuth    = "oauthbearer"
	mechanismAWS      = "aws-msk-iam"
)

//nolint:gochecknoglobals // a list that nobody changes
var mechanisms = []string{mechanismPlain, mechanismSCRAM256, mechanismSCRAM512, mechanismOAuth, mechanismAWS}

// wrongly notes what is wrong with a variable, whose name is without the prefix.
type wrongly func(name, format string, args ...any)

func (c Config) validateTLS(wrong wrongly) {
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		wrong("TLS_CERT_FILE", "a certificate and its key go together: set TLS_KEY_FILE as well, or neither")
	}
	if c.TLS {
		return
	}
	for name, value := range map[string]string{
		"TLS_CA_FILE": c.TLSCAFile, "TLS_CERT_FILE": c.TLSCertFile,
		"TLS_KEY_FILE": c.TLSKeyFile, "TLS_SERVER_NAME": c.TLSServerName,
	} {
		if value != "" {
			wrong(name, "is set, but %sTLS is not true", envPrefix)
		}
	}
}

func (c Config) validateSASL(wrong wrongly) {
	password := c.SASLUsername != "" || c.SASLPassword.IsSet()
	switch c.SASLMechanism {
	case "":
		if password {
			wrong("SASL_MECHANISM", "is required with a user or a password")
		}
	case mechanismPlain, mechanismSCRAM256, mechanismSCRAM512:
		if c.SASLUsername == "" {
			wrong("SASL_USERNAME", "is required with SASL_MECHANISM=%s", c.SASLMechanism)
		}
		if !c.SASLPassword.IsSet() {
			wrong("SASL_PASSWORD", "is required with SASL_MECHANISM=%s", c.SASLMechanism)
		}
	case mechanismOAuth, mechanismAWS:
		if password {
			wrong("SASL_USERNAME", "and SASL_PASSWORD are not for SASL_MECHANISM=%s", c.SASLMechanism)
		}
	default:
		wrong("SASL_MECHANISM", "%q is none of %s", c.SASLMechanism, strings.Join(mechanisms, ", "))
	}
	open := []string{mechanismPlain, mechanismOAuth, mechanismAWS}
	if slices.Contains(open, c.SASLMechanism) && !c.TLS && !c.SASLAllowPlaintext {
		wrong("SASL_MECHANISM", "%s without TLS can be read on the way and used by others: set %[2]sTLS=true, or %[2]sSASL_ALLOW_PLAINTEXT=true where the network is trusted",
			c.SASLMechanism, envPrefix)
	}
	c.validateOAuth(wrong)
}

func (c Config) validateOAuth(wrong wrongly) {
	client := c.SASLOAuthClientID != "" || c.SASLOAuthClientSecret.IsSet() || c.SASLOAuthScope != "" || c.SASLOAuthAudience != "" || c.SASLOAuthCAFile != ""
	if c.SASLMechanism != mechanismOAuth {
		if client || c.SASLOAuthToken.IsSet() || c.SASLOAuthTokenURL != "" || len(c.SASLOAuthExtensions) > 0 {
			wrong("SASL_MECHANISM", "must be %s for the variables that begin with %sSASL_OAUTH_", mechanismOAuth, envPrefix)
		}
		return
	}
	switch {
	case c.SASLOAuthToken.IsSet() == (c.SASLOAuthTokenURL != ""):
		wrong("SASL_OAUTH_TOKEN_URL", "set either this, or SASL_OAUTH_TOKEN or its file")
		return
	case c.SASLOAuthToken.IsSet():
		if client {
			wrong("SASL_OAUTH_TOKEN_URL", "is not set, so client, scope, audience and authorities have no use")
		}
		return
	}
	if c.SASLOAuthClientID == "" {
		wrong("SASL_OAUTH_CLIENT_ID", "is required with SASL_OAUTH_TOKEN_URL")
	}
	if !c.SASLOAuthClientSecret.IsSet() {
		wrong("SASL_OAUTH_CLIENT_SECRET", "is required with SASL_OAUTH_TOKEN_URL")
	}
	// What does not parse is not repeated: it may hold a secret.
	u, err := url.Parse(c.SASLOAuthTokenURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		wrong("SASL_OAUTH_TOKEN_URL", "is not the address of a token endpoint, such as https://idp.example.com/oauth2/token")
	case u.User != nil:
		wrong("SASL_OAUTH_TOKEN_URL", "holds a user: that is for SASL_OAUTH_CLIENT_ID and SASL_OAUTH_CLIENT_SECRET")
	case u.Scheme == "http" && !c.SASLAllowPlaintext:
		wrong("SASL_OAUTH_TOKEN_URL", "sends the client's secret without TLS: take https, or set %sSASL_ALLOW_PLAINTEXT=true where the network is trusted", envPrefix)
	}
}
