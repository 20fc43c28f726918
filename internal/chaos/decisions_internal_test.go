package chaos

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What the log of a coordinator says of transactions, in both of its versions.
func TestDecide(t *testing.T) {
	const ongoing, commit, abort, done = kmsg.TransactionStateOngoing, kmsg.TransactionStatePrepareCommit, kmsg.TransactionStatePrepareAbort, kmsg.TransactionStateCompleteCommit
	type state struct {
		epoch int16
		is    kmsg.TransactionState
	}
	for name, tc := range map[string]struct {
		log  []state
		want map[producer]bool
	}{
		"version 1, the last one commits":   {[]state{{5, ongoing}, {5, abort}, {5, ongoing}, {5, commit}, {5, done}, {6, kmsg.TransactionStateEmpty}}, map[producer]bool{{1, 5}: true}},
		"version 1, the last one runs":      {[]state{{5, ongoing}, {5, commit}, {5, done}, {5, ongoing}}, map[producer]bool{}},
		"version 2, the last one commits":   {[]state{{5, ongoing}, {6, abort}, {6, ongoing}, {7, commit}, {7, done}}, map[producer]bool{{1, 5}: false, {1, 6}: true}},
		"version 2, the last one is fenced": {[]state{{5, ongoing}, {6, commit}, {6, ongoing}, {7, kmsg.TransactionStatePrepareEpochFence}, {7, abort}}, map[producer]bool{{1, 5}: true, {1, 6}: false}},
		"more of a transaction":             {[]state{{5, ongoing}, {5, ongoing}, {6, commit}}, map[producer]bool{{1, 5}: true}},
	} {
		commits, running := map[producer]bool{}, map[int64]int16{}
		for _, s := range tc.log {
			decide(commits, running, &kmsg.TxnMetadataValue{ProducerID: 1, ProducerEpoch: s.epoch, State: s.is})
		}
		if diff := cmp.Diff(tc.want, commits, cmp.AllowUnexported(producer{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
