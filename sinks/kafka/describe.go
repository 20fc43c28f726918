package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// These two ask by bare requests and not through kadm, which answers for all
// topics with the first one that is forbidden.

// metadata returns how many partitions each existing topic has, and why the others have none.
func (s *scout) metadata(ctx context.Context, topics map[string]*topic) (partitions map[string]int, errs map[string]error, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false // whoever wants that sets CREATE_TOPICS
	for name := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		req.Topics = append(req.Topics, topic)
	}
	resp, err := req.RequestWith(ctx, s.producer.client)
	if err != nil {
		return nil, nil, fmt.Errorf("ask for topics: %w", err)
	}
	partitions, errs = make(map[string]int), make(map[string]error)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case t.Topic == nil:
		case err != nil:
			errs[*t.Topic] = err
		default:
			partitions[*t.Topic] = len(t.Partitions)
		}
	}
	return partitions, errs, nil
}

// settings reads what counts of each topic's settings: none where the relay may
// not read them, nil where the brokers cannot tell them just now.
func (s *scout) settings(ctx context.Context, topics map[string]int) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string, len(topics))
	if len(topics) == 0 {
		return all, nil
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	for name := range topics {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType = kmsg.ConfigResourceTypeTopic
		resource.ResourceName = name
		resource.ConfigNames = []string{configMaxBytes, configCleanup, configRetention, configType, configBefore, configAfter, configDifference}
		req.Resources = append(req.Resources, resource)
	}
	resp, err := req.RequestWith(ctx, s.producer.client)
	if err != nil {
		return nil, fmt.Errorf("ask for settings of topics: %w", err)
	}
	for i := range resp.Resources {
		r := &resp.Resources[i]
		if err := kerr.ErrorForCode(r.ErrorCode); kerr.IsRetriable(err) {
			continue // such as a topic so new that this broker does not know it
		}
		settings := make(map[string]string, len(r.Configs))
		for _, c := range r.Configs {
			if c.Value != nil {
				settings[c.Name] = *c.Value
			}
		}
		all[r.ResourceName] = settings
	}
	return all, nil
}
