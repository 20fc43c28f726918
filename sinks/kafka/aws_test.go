package kafka_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/outrider-cdc/outrider/relay"
	"github.com/outrider-cdc/outrider/sinks/kafka"
)

// managed is a broker that logs in as those of Amazon MSK do: it signs what it
// got once more, by AWS' own signer, and compares.
type managed struct {
	*kfake.Cluster
	keys    map[string]string // access key to secret
	session atomic.Value      // string: the session token that is wanted
	logins  atomic.Int64
	reasons chan string // why logins were refused
}

func newManaged(t *testing.T) (*managed, kafka.Config) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	none := file(t, nil)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-central-1") // our broker's name has none
	m := &managed{
		Cluster: fake(t, kfake.SeedTopics(1, "a")), reasons: make(chan string, 100),
		keys: map[string]string{"AKIDRIGHT": "planted-secret", "ASIAROLE": "planted-role-secret"},
	}
	m.session.Store("")
	m.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		m.KeepControl()
		answer := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if answer.SupportedMechanisms = []string{"AWS_MSK_IAM"}; r.(*kmsg.SASLHandshakeRequest).Mechanism != "AWS_MSK_IAM" {
			answer.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return answer, nil, true
	})
	m.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		m.KeepControl()
		answer := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		why := m.check(r.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes)
		if why == nil {
			m.logins.Add(1)
			answer.SASLAuthBytes = []byte(`{"version":"2020_10_22","request-id":"1"}`)
		} else {
			answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
			m.reasons <- why.Error()
		}
		return answer, nil, true
	})
	cfg := config(m.ListenAddrs()...)
	cfg.SASLMechanism, cfg.SASLAllowPlaintext = "aws-msk-iam", true
	return m, cfg
}

// check is what MSK does with the text of a login: a presigned GET of the
// broker's name for the action kafka-cluster:Connect.
func (m *managed) check(text []byte) error {
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	key, scope, _ := strings.Cut(got["x-amz-credential"], "/")
	parts := strings.Split(scope, "/")
	at, err := time.Parse("20060102T150405Z", got["x-amz-date"])
	switch {
	case err != nil:
		return err
	case got["version"] != "2020_10_22" || got["host"] != "127.0.0.1" || got["action"] != "kafka-cluster:Connect" || got["user-agent"] != "outrider":
		return fmt.Errorf("%v is not a login", got)
	case len(parts) != 4 || parts[0] != at.Format("20060102") || parts[1] != "eu-central-1" || parts[2] != "kafka-cluster":
		return fmt.Errorf("scope %s", scope)
	case time.Since(at).Abs() > 5*time.Minute:
		return fmt.Errorf("signed at %s", at)
	case got["x-amz-security-token"] != m.session.Load():
		return errors.New("wrong session token")
	}
	request, err := http.NewRequest(http.MethodGet, "https://127.0.0.1/?"+url.Values{"Action": {got["action"]}, "X-Amz-Expires": {got["x-amz-expires"]}}.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	empty := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of no body
	signed, _, err := v4.NewSigner().PresignHTTP(request.Context(), aws.Credentials{
		AccessKeyID: key, SecretAccessKey: m.keys[key], SessionToken: got["x-amz-security-token"],
	}, request, empty, "kafka-cluster", "eu-central-1", at)
	if err != nil {
		return err
	}
	u, err := url.Parse(signed)
	if err != nil {
		return err
	}
	if want := u.Query().Get("X-Amz-Signature"); got["x-amz-signature"] != want || m.keys[key] == "" {
		return errors.New("wrong signature")
	}
	return nil
}

func (m *managed) refused(t *testing.T, cfg kafka.Config, why string) {
	t.Helper()
	_ = halts(t, cfg, "kafka_authentication", "outrider config --acls")
	var reasons []string
	for len(m.reasons) > 0 {
		reasons = append(reasons, <-m.reasons)
	}
	if !slices.Contains(reasons, why) {
		t.Errorf("refused because of %q, want %q", reasons, why)
	}
}

func TestSignedLogin(t *testing.T) {
	m, cfg := newManaged(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDRIGHT")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.publish("a", "k", "0"))
	if m.logins.Load() == 0 {
		t.Error("nobody logged in")
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-password")
	m.refused(t, cfg, "wrong signature")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
	t.Setenv("AWS_SESSION_TOKEN", "another")
	m.refused(t, cfg, "wrong session token")
}

// In Kubernetes a service account's token is exchanged for credentials: by STS,
// whose refusal is told, and whose outage is waited for.
func TestLoginByWebIdentity(t *testing.T) {
	m, cfg := newManaged(t)
	m.session.Store("session")
	status := atomic.Int64{}
	status.Store(http.StatusOK)
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(int(status.Load()))
		switch {
		case status.Load() >= 500:
			_, _ = fmt.Fprint(w, `<ErrorResponse><Error><Type>Receiver</Type><Code>ServiceUnavailable</Code><Message>later</Message></Error></ErrorResponse>`)
		case status.Load() != http.StatusOK || r.PostFormValue("WebIdentityToken") != "planted-token":
			_, _ = fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>`)
		default:
			_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>planted-role-secret</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
				time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
	}))
	t.Cleanup(sts.Close)
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/outrider")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, []byte("planted-token")))
	w := newWorld(t, cfg)
	w.begin()
	w.delivered(w.publish("a", "k", "0"))

	status.Store(http.StatusForbidden)
	err := halts(t, cfg, "kafka_authentication", "aws sts get-caller-identity")
	if err != nil && strings.Contains(err.Error(), "planted-") {
		t.Errorf("the error tells a secret: %v", err)
	}

	status.Store(http.StatusServiceUnavailable)
	w = newWorld(t, cfg)
	begun := make(chan error, 1)
	go func() {
		_, err := w.sink.Begin(t.Context(), w.source())
		begun <- err
	}()
	w.condition("kafka_unreachable", "", true)
	status.Store(http.StatusOK)
	if err := <-begun; err != nil {
		t.Errorf("%v: %s", err, relay.HintText(err))
	}
}
