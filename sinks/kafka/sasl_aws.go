package kafka

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"

	"github.com/outrider-cdc/outrider/relay"
)

// iam logs in to Amazon MSK by a signature. The credentials are those that
// every program of AWS finds: environment, shared files, the web identity or pod
// identity of a Kubernetes service account, the task's or the instance's role.
// They are looked for anew at each login. The region is that in the broker's
// name; where there is none, AWS_REGION.
func (s *Sink) iam() sasl.Mechanism {
	return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		found, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}))
		if err != nil {
			return aws.Auth{}, credentialsError(err)
		}
		c, err := found.Credentials.Retrieve(ctx)
		if err != nil {
			return aws.Auth{}, credentialsError(err)
		}
		return aws.Auth{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, SessionToken: c.SessionToken, UserAgent: "outrider"}, nil
	})
}

// credentialsError tells a refusal of AWS from a service that is away, and from
// a machine that has no credentials, which may get some.
func credentialsError(err error) error {
	err = fmt.Errorf("look for AWS credentials: %w", err)
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if _, refused := errors.AsType[smithy.APIError](err); refused && ok && answer.HTTPStatusCode() < 500 && answer.HTTPStatusCode() != http.StatusTooManyRequests {
		return &relay.Halt{Reason: "kafka_authentication", Err: err, Hints: []relay.Hint{{
			Say: "let the service account, role or user of this process get credentials; who it is for AWS tells:", Shell: "aws sts get-caller-identity",
		}}}
	}
	return unavailable(err)
}
