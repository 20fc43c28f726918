package kafka

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-cdc/outrider/relay"
)

// slotPrefix begins the name of every slot that is not the operator's choice.
const slotPrefix = "outrider_"

// base is the part that all names for source have in common. A slot belongs to
// one relay of its database cluster, and so do these names: two that share a
// transactional id fence each other.
func base(source *relay.Source) string {
	if name, ok := strings.CutPrefix(source.Slot, slotPrefix); ok {
		return "outrider." + name
	}
	return "outrider.slot." + source.Slot // the dot keeps it apart from every name
}

func transactionalID(source *relay.Source) string {
	return base(source) + "." + source.SystemID
}

// checkpointTopic is not shared with relays of other database clusters: the
// open transaction of one would hide the checkpoints of the others.
func checkpointTopic(source *relay.Source) string {
	return base(source) + ".checkpoint." + source.SystemID
}

// stored is a checkpoint as it lies in its topic.
type stored struct {
	relay.Checkpoint
	transaction string // names the transaction that wrote it, for ever
}

// checkpointVersion is of the format. Fields may be added under it; a change of meaning needs another.
const checkpointVersion = 1

// checkpointFormat is the value of a record. Positions are text, in the form of
// the outrider-position header: JSON's numbers end at 2^53.
type checkpointFormat struct {
	Version     int      `json:"version"`
	Transaction string   `json:"transaction"`
	Generation  int64    `json:"generation"`
	Epoch       int64    `json:"epoch"`
	WriteSeq    int64    `json:"write_seq"`
	Phase       string   `json:"phase"`
	Position    string   `json:"position"`
	Cursor      int64    `json:"cursor,string"`
	LastID      string   `json:"last_id"`
	Owed        []string `json:"owed,omitempty"`
	Options     string   `json:"options"`
	History     string   `json:"history"`
	SystemID    string   `json:"system_id"`
	Timeline    int32    `json:"timeline"`
}

func (s stored) encode() ([]byte, error) {
	f := checkpointFormat{
		Version: checkpointVersion, Transaction: s.transaction,
		Generation: s.Generation, Epoch: s.Epoch, WriteSeq: s.WriteSeq, Phase: s.Phase,
		Position: s.Position.String(), Cursor: s.Cursor, LastID: s.LastID,
		Options: s.Options, History: s.History, SystemID: s.SystemID, Timeline: s.Timeline,
	}
	for _, p := range s.Owed {
		f.Owed = append(f.Owed, p.String())
	}
	return json.Marshal(f)
}

// decodeCheckpoint reads what encode wrote, also that of another version of this program.
func decodeCheckpoint(value []byte) (stored, error) {
	var f checkpointFormat
	if err := json.Unmarshal(value, &f); err != nil {
		return stored{}, fmt.Errorf("decode a checkpoint: %w", err)
	}
	if f.Version != checkpointVersion {
		return stored{}, fmt.Errorf("decode a checkpoint: its version is %d, known is %d", f.Version, checkpointVersion)
	}
	position, err := parsePosition(f.Position)
	if err != nil {
		return stored{}, err
	}
	s := stored{transaction: f.Transaction, Checkpoint: relay.Checkpoint{
		Generation: f.Generation, Epoch: f.Epoch, WriteSeq: f.WriteSeq, Phase: f.Phase,
		Position: position, Cursor: f.Cursor, LastID: f.LastID,
		Options: f.Options, History: f.History, SystemID: f.SystemID, Timeline: f.Timeline,
	}}
	if s.Phase != relay.CheckpointBacklog && s.Phase != relay.CheckpointStreaming {
		return stored{}, fmt.Errorf("decode a checkpoint: unknown phase %q", s.Phase)
	}
	for _, text := range f.Owed {
		p, err := parsePosition(text)
		if err != nil {
			return stored{}, err
		}
		s.Owed = append(s.Owed, p)
	}
	return s, nil
}

// parsePosition reads what [relay.Position.String] returns.
func parsePosition(s string) (relay.Position, error) {
	high, low, _ := strings.Cut(s, ".")
	lsn, err := strconv.ParseUint(high, 16, 64)
	ordinal, lowErr := strconv.ParseUint(low, 16, 64)
	if err != nil || lowErr != nil {
		return relay.Position{}, fmt.Errorf("decode a checkpoint: %q is no position", s)
	}
	return relay.Position{LSN: relay.LSN(lsn), Ordinal: ordinal}, nil
}

// coverage makes each checkpoint out of the one before.
type coverage struct {
	source *relay.Source
	last   relay.Checkpoint // committed; zero: none of this generation
	run    string           // random: no two runs name a transaction alike
	number int64            // of the last transaction
}

func newCoverage(source *relay.Source, last relay.Checkpoint) coverage {
	if last.Generation != source.Generation || last.Timeline != source.Timeline {
		// Its positions mean nothing in this one. Those of another timeline may lie
		// ahead of all that this one will bring for long: rows that a former primary
		// had and this one has not.
		last = relay.Checkpoint{}
	}
	return coverage{source: source, last: last, run: rand.Text()}
}

// with is the checkpoint after messages, when these others are published and wait.
func (c *coverage) with(messages []*relay.Message, waiting []entry) stored {
	c.number++
	next := relay.Checkpoint{
		Generation: c.source.Generation, Epoch: c.source.Epoch,
		Phase: c.last.Phase, Position: c.last.Position, Cursor: c.last.Cursor, LastID: c.last.LastID,
		Options: c.source.Options, History: c.source.History,
		SystemID: c.source.SystemID, Timeline: c.source.Timeline,
	}
	if c.source.WriteSeq != nil {
		next.WriteSeq = c.source.WriteSeq()
	}
	owed := make(map[relay.Position]bool, len(c.last.Owed))
	for _, p := range c.last.Owed {
		owed[p] = true
	}
	var last *relay.Message
	for _, m := range messages {
		if len(owed) > 0 && owed[m.Position] {
			delete(owed, m.Position)
		} else if last == nil || passes(m, last.Cursor, last.Position) {
			last = m
		}
	}
	if last != nil && (next.Phase == "" || passes(last, next.Cursor, next.Position)) {
		next.Phase, next.Position, next.Cursor, next.LastID = phase(last), last.Position, last.Cursor, string(last.ID)
	}
	for _, e := range waiting {
		if before(e.message.Position, next.Position) {
			owed[e.message.Position] = true
		}
	}
	if len(owed) > 0 {
		next.Owed = slices.SortedFunc(maps.Keys(owed), comparePositions)
	}
	return stored{Checkpoint: next, transaction: c.run + "." + strconv.FormatInt(c.number, 10)}
}

func phase(m *relay.Message) string {
	if m.Cursor > 0 {
		return relay.CheckpointBacklog
	}
	return relay.CheckpointStreaming
}

// passes reports whether m was published after the row at cursor and position.
// All rows of the backlog are published before the first that streams.
func passes(m *relay.Message, cursor int64, position relay.Position) bool {
	if (m.Cursor > 0) != (cursor > 0) {
		return m.Cursor == 0
	}
	return !before(m.Position, position)
}

func before(a, b relay.Position) bool { return comparePositions(a, b) < 0 }

func comparePositions(a, b relay.Position) int {
	return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.Ordinal, b.Ordinal))
}
