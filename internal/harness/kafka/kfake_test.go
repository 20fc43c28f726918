package kafka_test

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/outrider-cdc/outrider/internal/harness/child"
)

// How a fake broker goes away and comes back: same port, same data folder. The
// same client goes on with it.
func TestFakeComesBackWithItsData(t *testing.T) {
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(1, "orders"), kfake.DataDir(t.TempDir())}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	addresses := fake.ListenAddrs()
	p := client(t, addresses)
	produce(t, p, "orders", "a", "b")
	fake.Close()

	fake, err = kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	if !slices.Equal(fake.ListenAddrs(), addresses) {
		t.Errorf("it is at %v now, was at %v", fake.ListenAddrs(), addresses)
	}
	produce(t, p, "orders", "c")
	if got, want := consume(t, addresses, "orders", 3), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("consumed %q, want %q", got, want)
	}
}
