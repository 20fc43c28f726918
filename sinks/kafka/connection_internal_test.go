package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A client of franz-go goes on under another epoch when a batch of it was
// refused; here not one request of that leaves.
func TestClientStaysOneProducer(t *testing.T) {
	for name, guarded := range map[string]bool{"franz-go alone": false, "guarded": true} {
		t.Run(name, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			var requests, others atomic.Int32
			var first atomic.Pointer[identity]
			cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				produce := req.(*kmsg.ProduceRequest) //nolint:forcetypeassert // the key says so
				now := identityOf(produce)
				if !first.CompareAndSwap(nil, &now) && *first.Load() != now {
					others.Add(1)
				}
				if requests.Add(1) != 2 {
					return nil, nil, false
				}
				resp := produce.ResponseKind().(*kmsg.ProduceResponse) //nolint:forcetypeassert // as it is made
				for _, topic := range produce.Topics {
					rt := kmsg.NewProduceResponseTopic()
					rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
					rp := kmsg.NewProduceResponseTopicPartition()
					rp.ErrorCode = kerr.InvalidRecord.Code
					rt.Partitions = append(rt.Partitions, rp)
					resp.Topics = append(resp.Topics, rt)
				}
				return resp, nil, true
			})
			p := &producer{}
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err != nil || !guarded {
					return conn, err
				}
				return &oneProducerConn{conn, p}, nil
			}
			client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(dial), kgo.DefaultProduceTopic("t"))
			if err != nil {
				t.Fatal(err)
			}
			shut := make(chan struct{})
			p.shut = sync.OnceFunc(func() { client.Close(); close(shut) })
			if !guarded {
				defer client.Close()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			send := func() error { return client.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr() }
			if err := send(); err != nil {
				t.Fatal(err)
			}
			if err := send(); !errors.Is(err, kerr.InvalidRecord) {
				t.Fatalf("the refused record: %v", err)
			}
			err = send()
			switch {
			case !guarded && (err != nil || others.Load() == 0):
				t.Errorf("franz-go has changed: %v, %d requests of another producer", err, others.Load())
			case guarded && (err == nil || others.Load() > 0):
				t.Errorf("%v, %d requests of another producer", err, others.Load())
			}
			if !guarded {
				return
			}
			<-shut
			if !p.failed.Load() {
				t.Error("the next leadership would go on with this client")
			}
		})
	}
}

func identityOf(req *kmsg.ProduceRequest) identity {
	framed := kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, req, 7)
	i, _ := producerOf(framed)
	return i
}
