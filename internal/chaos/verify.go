package chaos

import (
	"cmp"
	"slices"
	"strings"
)

// Verify compares what was committed with what is on Kafka. It does no I/O and
// keeps nothing of h.
func Verify(h History) Report {
	v := &verifier{
		h: h, first: make([]int32, len(h.Committed)),
		rows: make(map[ID]int32, len(h.Committed)), rolledBack: make(map[ID]struct{}, len(h.RolledBack)),
		keys: map[topicKey]*keyState{}, ghosts: map[ID]struct{}{}, vanished: make(map[ID]struct{}, len(h.Vanished)),
	}
	v.report = Report{
		Committed: len(h.Committed), Records: len(h.Records), Samples: len(h.Samples),
		KeyContention: h.KeyContention, ExactlyOnce: h.ExactlyOnce,
	}
	v.index()
	v.readRecords()
	v.findLost()
	v.checkLastValues()
	v.checkPositions()
	v.checkSamples()
	for _, partition := range h.Hanging {
		v.report.Hanging.add("%s", partition)
	}
	return v.report
}

// topicKey is what Kafka keeps in order.
type topicKey struct{ topic, key string }

type keyState struct {
	partition int32
	newest    int64 // highest counter among the first occurrences so far
	last      int32 // index of the last record
	lastRow   int32 // index of the last record's row, or ghost or phantom
}

// Rows of records that no committed row belongs to.
const (
	ghost   int32 = -1
	phantom int32 = -2 // the database had it and has lost it
)

type verifier struct {
	h          History
	report     Report
	rows       map[ID]int32 // index in Committed
	rolledBack map[ID]struct{}
	ghosts     map[ID]struct{}
	vanished   map[ID]struct{}
	first      []int32 // per committed row: index of its first record + 1, 0: none
	keys       map[topicKey]*keyState
	byKey      [][]int32 // committed rows of each key in commit order
}

// index also proves the journal itself: counters that repeat or have holes mean
// that the writers lost track, and a report on such a run would be worthless.
func (v *verifier) index() {
	byKey := map[string][]int32{}
	for i, row := range v.h.Committed {
		if _, twice := v.rows[row.ID]; twice {
			v.report.Unsound.add("row %s was committed twice", row.ID)
		}
		v.rows[row.ID] = int32(i)
		if row.Keyed {
			byKey[row.Key] = append(byKey[row.Key], int32(i))
		}
	}
	for _, id := range v.h.RolledBack {
		if _, both := v.rows[id]; both {
			v.report.Unsound.add("row %s was both committed and rolled back", id)
		}
		v.rolledBack[id] = struct{}{}
	}
	for _, id := range v.h.Vanished {
		if _, both := v.rows[id]; both {
			v.report.Unsound.add("row %s is committed and has vanished", id)
		}
		v.vanished[id] = struct{}{}
	}
	for key, rows := range byKey {
		slices.SortFunc(rows, func(a, b int32) int { return cmp.Compare(v.h.Committed[a].N, v.h.Committed[b].N) })
		for i, row := range rows {
			if n := v.h.Committed[row].N; n != int64(i)+1 {
				v.report.Unsound.add("key %q: row %d in commit order has counter %d", key, i+1, n)
				break
			}
		}
		v.byKey = append(v.byKey, rows)
	}
}

func (v *verifier) readRecords() {
	offsets := map[Partition]int64{}
	for i := range v.h.Records {
		rec := &v.h.Records[i]
		p := Partition{rec.Topic, rec.Partition}
		if before, seen := offsets[p]; seen && rec.Offset <= before {
			v.report.Unsound.add("%s/%d: offset %d was read after %d", rec.Topic, rec.Partition, rec.Offset, before)
		}
		offsets[p] = rec.Offset
		if rec.Missing != 0 {
			v.report.MissingHeaders.add("%s: %s", at(rec), rec.Missing)
		}
		row, known := v.rows[rec.ID]
		if !known {
			row = v.stranger(rec)
		}
		v.follow(int32(i), row)
		if !known {
			continue
		}
		v.compare(rec, row)
		if f := v.first[row]; f != 0 {
			v.report.Duplicates.add("%s repeats %s", at(rec), at(&v.h.Records[f-1]))
			v.samePosition(rec, &v.h.Records[f-1])
			continue
		}
		v.first[row] = int32(i) + 1
		v.report.Delivered++
	}
}

// stranger says what a record is that no committed row belongs to.
func (v *verifier) stranger(rec *Record) int32 {
	if _, gone := v.vanished[rec.ID]; gone && rec.Missing&MissingID == 0 {
		v.report.Phantoms++
		return phantom
	}
	v.ghost(rec)
	return ghost
}

func (v *verifier) ghost(rec *Record) {
	if rec.Missing&MissingID != 0 {
		return // told already, and its row is told as lost
	}
	if _, told := v.ghosts[rec.ID]; told {
		return
	}
	v.ghosts[rec.ID] = struct{}{}
	if _, rolledBack := v.rolledBack[rec.ID]; rolledBack {
		v.report.Ghosts.add("%s was rolled back", at(rec))
	} else {
		v.report.Ghosts.add("%s is no row that anybody committed", at(rec))
	}
}

// follow keeps the state of a key: the order of first occurrences and the last record.
func (v *verifier) follow(record, row int32) {
	rec := &v.h.Records[record]
	if !rec.Keyed {
		return
	}
	tk := topicKey{rec.Topic, rec.Key}
	state := v.keys[tk]
	if state == nil {
		state = &keyState{partition: rec.Partition}
		v.keys[tk] = state
	}
	if state.partition != rec.Partition {
		v.report.OutOfOrder.add("%s: the key %q is also in partition %d, so that it has no order", at(rec), rec.Key, state.partition)
	}
	state.last, state.lastRow = record, row
	if row == phantom && rec.N <= state.newest {
		// The database gave the counter to another row, and that one was here first.
		v.report.OutOfOrder.add("%s: key %q: counter %d of a row that vanished comes after %d", at(rec), rec.Key, rec.N, state.newest)
	}
	if row < 0 || v.first[row] != 0 {
		return
	}
	if n := v.h.Committed[row].N; n > state.newest {
		state.newest = n
	} else {
		v.report.OutOfOrder.add("%s: key %q: counter %d comes first after %d", at(rec), rec.Key, n, state.newest)
	}
}

func (v *verifier) compare(rec *Record, row int32) {
	want := v.h.Committed[row].Content
	if rec.Content == want {
		return
	}
	var parts []string
	for part, same := range map[string]bool{
		"topic": rec.Topic == want.Topic, "key": rec.Key == want.Key && rec.Keyed == want.Keyed, "type": rec.Type == want.Type,
		"counter": rec.N == want.N, "value": rec.Value == want.Value && rec.Tombstone == want.Tombstone, "headers": rec.Headers == want.Headers,
	} {
		if !same {
			parts = append(parts, part)
		}
	}
	slices.Sort(parts)
	v.report.Corrupted.add("%s: differs from the row in %s", at(rec), strings.Join(parts, ", "))
}

func (v *verifier) samePosition(rec, first *Record) {
	if rec.Source == first.Source && rec.Position != first.Position {
		v.report.PositionErrors.add("%s has another position than %s under the same source", at(rec), at(first))
	}
}

// findLost looks at both the journal and the table: a row that the journal
// forgot, or that another writer put there, counts as well.
func (v *verifier) findLost() {
	for i, row := range v.h.Committed {
		if v.first[i] == 0 {
			v.report.Lost.add("row %s (topic %s, key %q, counter %d) is not on Kafka", row.ID, row.Topic, row.Key, row.N)
		}
	}
	if v.h.Table == nil {
		return
	}
	inTable := make(map[ID]struct{}, len(v.h.Table))
	for _, id := range v.h.Table {
		inTable[id] = struct{}{}
		if _, journalled := v.rows[id]; journalled {
			continue
		}
		v.report.Unsound.add("row %s stands in the table and not in the journal", id)
		if _, arrived := v.ghosts[id]; !arrived {
			v.report.Lost.add("row %s of the table is not on Kafka", id)
		}
	}
	for _, row := range v.h.Committed {
		if _, there := inTable[row.ID]; !there {
			v.report.Unsound.add("row %s was committed and is not in the table", row.ID)
		}
	}
}

func (v *verifier) checkLastValues() {
	newest := map[topicKey]int32{}
	for _, rows := range v.byKey {
		for _, i := range rows {
			row := &v.h.Committed[i]
			newest[topicKey{row.Topic, row.Key}] = i
		}
	}
	for tk, want := range newest {
		state := v.keys[tk]
		switch {
		case state == nil:
			v.report.LastValueErrors.add("key %q of %s has no record", tk.key, tk.topic)
		case state.lastRow == phantom && v.h.Records[state.last].N > v.h.Committed[want].N: // nothing was written to the key since
		case state.lastRow < 0:
			v.report.LastValueErrors.add("key %q ends with a record of no committed row: %s", tk.key, at(&v.h.Records[state.last]))
		case state.lastRow != want:
			v.report.LastValueErrors.add("key %q ends with counter %d (%s), committed last was %d",
				tk.key, v.h.Committed[state.lastRow].N, at(&v.h.Records[state.last]), v.h.Committed[want].N)
		}
	}
}
