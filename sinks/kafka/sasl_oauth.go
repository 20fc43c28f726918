package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/outrider-cdc/outrider/relay"
)

// bearer logs in with a token: the one that was given, or one that an endpoint
// gives for client credentials.
func (s *Sink) bearer() sasl.Mechanism {
	return bearer{oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		token, err := s.token(ctx)
		return oauth.Auth{Token: token, Extensions: s.cfg.SASLOAuthExtensions}, err
	})}
}

func (s *Sink) token(ctx context.Context) (string, error) {
	if s.cfg.SASLOAuthTokenURL == "" {
		return reveal(s.cfg.SASLOAuthToken, "SASL_OAUTH_TOKEN_FILE")
	}
	client, err := reveal(s.cfg.SASLOAuthClientSecret, "SASL_OAUTH_CLIENT_SECRET_FILE")
	if err != nil {
		return "", err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	if s.cfg.SASLOAuthCAFile != "" {
		if transport.TLSClientConfig.RootCAs, err = authorities("SASL_OAUTH_CA_FILE", s.cfg.SASLOAuthCAFile); err != nil {
			return "", err
		}
	}
	request := clientcredentials.Config{
		ClientID: s.cfg.SASLOAuthClientID, ClientSecret: client, TokenURL: s.cfg.SASLOAuthTokenURL, Scopes: strings.Fields(s.cfg.SASLOAuthScope),
	}
	if s.cfg.SASLOAuthAudience != "" {
		request.EndpointParams = url.Values{"audience": {s.cfg.SASLOAuthAudience}}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	token, err := request.Token(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport}))
	if err != nil {
		return "", tokenError(err, client)
	}
	return token.AccessToken, nil
}

// tokenError sorts what a token endpoint ended with. Its answer is not repeated
// as a whole: it is another party's text, and may repeat what was sent.
func tokenError(err error, client string) error {
	if refusal, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		told := strings.ReplaceAll(refusal.ErrorDescription, client, "REDACTED")
		status := 0
		if refusal.Response != nil {
			status = refusal.Response.StatusCode
		}
		err = fmt.Errorf("token endpoint answers %d %s %.200s", status, refusal.ErrorCode, told)
		if status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
			return unavailable(err)
		}
		return &relay.Halt{Reason: "kafka_authentication", Err: err, Hints: []relay.Hint{{
			Say: "correct client, secret and endpoint; a secret's file is read again at each login",
			Env: envPrefix + "SASL_OAUTH_CLIENT_ID=<client>\n" + envPrefix + "SASL_OAUTH_CLIENT_SECRET_FILE=<path>\n" + envPrefix + "SASL_OAUTH_TOKEN_URL=<url>",
		}}}
	}
	err = fmt.Errorf("ask for a token: %w", err)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &relay.Halt{Reason: "kafka_tls", Err: err, Hints: []relay.Hint{{
			Say: "trust the authority that signed the token endpoint's certificate, and name the endpoint as in it; the file is read at each login",
			Env: envPrefix + "SASL_OAUTH_CA_FILE=<path>",
		}}}
	}
	return unavailable(err)
}

// bearer understands a refused token. A broker answers one in two steps (RFC
// 7628, 3.2.2): without an error code, with what is wrong, and with the code
// only to a message more. franz-go takes the first for a broken protocol.
type bearer struct{ sasl.Mechanism }

// Authenticate implements [sasl.Mechanism].
func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	session, first, err := b.Mechanism.Authenticate(ctx, host)
	return bearerSession{session}, first, err
}

type bearerSession struct{ sasl.Session }

// Challenge implements [sasl.Session].
func (b bearerSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) > 0 {
		return false, nil, fmt.Errorf("the brokers refuse the token: %.200q: %w", answer, kerr.SaslAuthenticationFailed)
	}
	return b.Session.Challenge(answer)
}
