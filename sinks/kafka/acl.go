package kafka

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
)

// Access is what a sink does that Kafka can forbid.
type Access struct {
	Name        string   // of the relay; its own topics and its transactional id begin with outrider.<name>.
	Topics      []string // rows may go to; a * at the end stands for anything. None: to all
	Prefix      string   // that all topics of rows have
	DeadLetters string   // topic of dead letters; "" if there are none
	ExactlyOnce bool
	Principal   string // "": the one that follows from the configuration
}

// resource is something that Kafka guards, by its exact name or by how it begins.
type resource struct {
	kind, name string
	prefixed   bool
	operations []string
}

const (
	kindTopic       = "topic"
	kindTransaction = "transactional-id"
)

// resources lists what the sink of c touches, and how.
func (c Config) resources(a Access) []resource {
	write := []string{"Write", "Describe", "DescribeConfigs"}
	if c.CreateTopics {
		write = append(write, "Create")
	}
	topics := a.Topics
	if len(topics) == 0 {
		topics = []string{a.Prefix + "*"}
	}
	var all []resource
	for _, topic := range topics {
		name, prefixed := strings.CutSuffix(topic, "*")
		if prefixed && name == "" {
			name, prefixed = "*", false // Kafka's sign for all
		}
		all = append(all, resource{kindTopic, name, prefixed, write})
	}
	if a.DeadLetters != "" {
		all = append(all, resource{kindTopic, a.DeadLetters, false, write})
	}
	if a.ExactlyOnce {
		all = append(all,
			// The relay makes the topic of checkpoints itself, whatever CREATE_TOPICS says.
			resource{kindTopic, "outrider." + a.Name + ".checkpoint.", true, []string{"Read", "Write", "Describe", "DescribeConfigs", "Create"}},
			resource{kindTransaction, "outrider." + a.Name + ".", true, []string{"Write", "Describe"}})
	}
	return all
}

// ACLs are the commands that allow a relay what it needs, and nothing else.
func (c Config) ACLs(a Access) []string {
	who := classifier{brokers: c.Brokers, user: c.SASLUsername, certificate: c.TLSCertFile != ""}
	if a.Principal == "" && c.SASLMechanism == "" {
		a.Principal = c.certificatePrincipal()
	}
	if a.Principal == "" && c.SASLMechanism == mechanismOAuth {
		a.Principal = "User:<subject of the token>"
	}
	who.principal = a.Principal
	var commands []string
	for _, r := range c.resources(a) {
		var what strings.Builder
		for _, operation := range r.operations {
			what.WriteString("--operation " + operation + " ")
		}
		what.WriteString("--" + r.kind + " " + shellQuote(r.name))
		if r.prefixed {
			what.WriteString(" --resource-pattern-type prefixed")
		}
		commands = append(commands, who.acl(what.String()))
	}
	return commands
}

// certificatePrincipal is what brokers call the client's certificate, unless
// their ssl.principal.mapping.rules say otherwise: its distinguished name (RFC 2253).
func (c Config) certificatePrincipal() string {
	text, err := os.ReadFile(c.TLSCertFile)
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return ""
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return "User:" + certificate.Subject.String()
}

// Policy is what IAM must allow where it decides about access to the brokers; nil
// where it does not. Region, account and cluster are for the reader to fill in.
func (c Config) Policy(a Access) map[string]any {
	if c.SASLMechanism != mechanismAWS {
		return nil
	}
	const arn = "arn:aws:kafka:<region>:<account>:"
	allow := func(resource string, actions ...string) map[string]any {
		for i := range actions {
			actions[i] = "kafka-cluster:" + actions[i]
		}
		return map[string]any{"Effect": "Allow", "Action": actions, "Resource": arn + resource}
	}
	statements := []any{allow("cluster/<cluster>/*", "Connect", "WriteDataIdempotently")}
	names := map[string]string{
		"Write": "WriteData", "Read": "ReadData", "Describe": "DescribeTopic", "DescribeConfigs": "DescribeTopicDynamicConfiguration", "Create": "CreateTopic",
	}
	for _, r := range c.resources(a) {
		name := strings.TrimSuffix(r.name, "*")
		if r.prefixed || name != r.name {
			name += "*"
		}
		if r.kind == kindTransaction {
			statements = append(statements, allow("transactional-id/<cluster>/*/"+name, "DescribeTransactionalId", "AlterTransactionalId"))
			continue
		}
		var actions []string
		for _, operation := range r.operations {
			actions = append(actions, names[operation])
		}
		statements = append(statements, allow("topic/<cluster>/*/"+name, actions...))
	}
	if a.ExactlyOnce { // IAM grants ReadData only together with these
		statements = append(statements, allow("group/<cluster>/*/outrider."+a.Name+".*", "AlterGroup", "DescribeGroup"))
	}
	return map[string]any{"Version": "2012-10-17", "Statement": statements}
}
