package kafka

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-cdc/outrider/relay"
)

func TestCheckpointSurvivesItsEncoding(t *testing.T) {
	want := stored{transaction: "run.9", Checkpoint: relay.Checkpoint{
		Generation: 2, Epoch: 3, WriteSeq: 4, Phase: relay.CheckpointBacklog,
		Position: relay.Position{LSN: math.MaxUint64, Ordinal: math.MaxInt64}, Cursor: math.MaxInt64, LastID: "id \"\x00",
		Owed: []relay.Position{{}, {LSN: 1 << 53, Ordinal: 1<<53 + 1}}, Options: "o", History: "h", SystemID: "7", Timeline: 5,
	}}
	value, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeCheckpoint(value)
	if err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(stored{})) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got, cmp.AllowUnexported(stored{})))
	}
	// Numbers that JSON readers round are text.
	for _, text := range []string{`"cursor":"9223372036854775807"`, `"position":"FFFFFFFFFFFFFFFF.7FFFFFFFFFFFFFFF"`} {
		if !strings.Contains(string(value), text) {
			t.Errorf("%s lacks %s", value, text)
		}
	}
}

func TestStrangeCheckpoints(t *testing.T) {
	for _, value := range []string{
		``, `{}`, `x`, `{"version":2}`,
		`{"version":1,"phase":"streaming","position":"1","cursor":"0"}`,
		`{"version":1,"phase":"streaming","position":"g.1","cursor":"0"}`,
		`{"version":1,"phase":"streaming","position":"1.-1","cursor":"0"}`,
		`{"version":1,"phase":"streaming","position":"1.1","cursor":"0","owed":["1"]}`,
		`{"version":1,"phase":"other","position":"1.1","cursor":"0"}`,
		`{"version":1,"phase":"streaming","position":"1.1","cursor":0}`,
	} {
		if s, err := decodeCheckpoint([]byte(value)); err == nil {
			t.Errorf("%s is read as %+v", value, s)
		}
	}
	// Fields of a later program under the same version are no obstacle.
	if _, err := decodeCheckpoint([]byte(`{"version":1,"phase":"streaming","position":"1.1","cursor":"0","later":[]}`)); err != nil {
		t.Error(err)
	}
}

func TestNamesOfDifferentSlotsDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, slot := range []string{"outrider_a", "a", "outrider_slot", "slot", "outrider_slot_a", "slot_a", "outrider_checkpoint", "checkpoint"} {
		for _, id := range []string{"1", "11"} {
			source := &relay.Source{Slot: slot, SystemID: id}
			for kind, name := range map[string]string{"id ": transactionalID(source), "topic ": checkpointTopic(source)} {
				if other := seen[kind+name]; other != "" {
					t.Errorf("%s%s of %s.%s belongs to %s as well", kind, name, slot, id, other)
				}
				seen[kind+name] = slot + "." + id
				if err := checkName(name); err != nil {
					t.Error(err)
				}
			}
		}
	}
	source := &relay.Source{Slot: "outrider_shop", SystemID: "7"}
	if transactionalID(source) != "outrider.shop.7" || checkpointTopic(source) != "outrider.shop.checkpoint.7" {
		t.Errorf("%s, %s", transactionalID(source), checkpointTopic(source))
	}
}

// What a checkpoint covers never shrinks, and names each row that was let past until it is published.
func TestCoverage(t *testing.T) {
	at := func(lsn relay.LSN) relay.Position { return relay.Position{LSN: lsn} }
	message := func(lsn relay.LSN) *relay.Message { return &relay.Message{ID: []byte("id"), Position: at(lsn)} }
	backlog := func(seq int64) *relay.Message {
		return &relay.Message{ID: []byte("id"), Position: relay.Position{LSN: 50, Ordinal: uint64(seq)}, Cursor: seq}
	}
	source := &relay.Source{Generation: 4, Epoch: 9}
	old := relay.Checkpoint{Generation: 4, Epoch: 8, Phase: relay.CheckpointStreaming, Position: at(100), LastID: "old", Owed: []relay.Position{at(7), at(8)}}
	for name, test := range map[string]struct {
		last     relay.Checkpoint
		messages []*relay.Message
		waiting  []entry
		position relay.Position
		owed     []relay.Position
		phase    string
		id       string
	}{
		"first":                     {messages: []*relay.Message{message(3), message(5)}, position: at(5), phase: relay.CheckpointStreaming, id: "id"},
		"of an older generation":    {last: relay.Checkpoint{Generation: 3, Phase: relay.CheckpointStreaming, Position: at(100), Owed: []relay.Position{at(1)}}, messages: []*relay.Message{message(3)}, position: at(3), phase: relay.CheckpointStreaming, id: "id"},
		"of another timeline":       {last: relay.Checkpoint{Generation: 4, Timeline: 3, Phase: relay.CheckpointStreaming, Position: at(100)}, messages: []*relay.Message{message(3)}, position: at(3), phase: relay.CheckpointStreaming, id: "id"},
		"an owed row":               {last: old, messages: []*relay.Message{message(7)}, position: at(100), owed: []relay.Position{at(8)}, phase: relay.CheckpointStreaming, id: "old"},
		"owed rows and a new one":   {last: old, messages: []*relay.Message{message(7), message(101), message(8)}, position: at(101), phase: relay.CheckpointStreaming, id: "id"},
		"one more waits":            {last: old, messages: []*relay.Message{message(102)}, waiting: []entry{{message: message(101)}, {message: message(103)}}, position: at(102), owed: []relay.Position{at(7), at(8), at(101)}, phase: relay.CheckpointStreaming, id: "id"},
		"backlog":                   {messages: []*relay.Message{backlog(1), backlog(2)}, waiting: []entry{{message: backlog(1)}}, position: backlog(2).Position, owed: []relay.Position{backlog(1).Position}, phase: relay.CheckpointBacklog, id: "id"},
		"streaming after backlog":   {last: relay.Checkpoint{Generation: 4, Phase: relay.CheckpointBacklog, Position: backlog(2).Position, Cursor: 2}, messages: []*relay.Message{message(40)}, position: at(40), phase: relay.CheckpointStreaming, id: "id"},
		"late one let past earlier": {messages: []*relay.Message{message(9), message(4)}, position: at(9), phase: relay.CheckpointStreaming, id: "id"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCoverage(source, test.last)
			got := c.with(test.messages, test.waiting)
			want := relay.Checkpoint{Generation: 4, Epoch: 9, Phase: test.phase, Position: test.position, LastID: test.id, Owed: test.owed}
			if test.phase == relay.CheckpointBacklog {
				want.Cursor = int64(test.position.Ordinal)
			}
			if !cmp.Equal(got.Checkpoint, want) {
				t.Error(cmp.Diff(want, got.Checkpoint))
			}
			if again := c.with(test.messages, test.waiting); again.transaction == got.transaction {
				t.Error("two transactions have one name")
			}
		})
	}
}
