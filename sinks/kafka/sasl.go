package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// mechanism returns how to log in, nil for not at all. Secrets are read at each
// connect, and again where the broker asks for it during a connection's life
// (KIP-368), so that rotated ones need no restart.
func (s *Sink) mechanism() sasl.Mechanism {
	scrammed := func(context.Context) (scram.Auth, error) {
		p, err := s.password()
		return scram.Auth{User: s.cfg.SASLUsername, Pass: p}, err
	}
	switch s.cfg.SASLMechanism {
	case mechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := s.password()
			return plain.Auth{User: s.cfg.SASLUsername, Pass: p}, err
		})
	case mechanismSCRAM256:
		return scram.Sha256(scrammed)
	case mechanismSCRAM512:
		return scram.Sha512(scrammed)
	case mechanismOAuth:
		return s.bearer()
	case mechanismAWS:
		return s.iam()
	}
	return nil
}

func (s *Sink) password() (string, error) { return reveal(s.cfg.SASLPassword, "SASL_PASSWORD_FILE") }

// reveal reads a secret whose file is named by the variable; an empty one is a file that is just being written.
func reveal(text secret.Text, variable string) (string, error) {
	value, err := text.Reveal()
	if err == nil && value == "" {
		err = errors.New(text.File() + " is empty")
	}
	if err != nil {
		return "", &relay.Halt{
			Reason: "kafka_authentication", Err: err,
			Hints: []relay.Hint{{Say: "mend the file, which is read at each connect, or name another", Env: envPrefix + variable + "=<path>"}},
		}
	}
	return value, nil
}

// unavailable is an error that says nothing about the login, such as a token
// endpoint that is away. As one of dialling it makes franz-go keep what it has
// in flight and try again.
func unavailable(err error) error { return asDialError("tcp", err) }
