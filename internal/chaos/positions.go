package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func at(rec *Record) string {
	return fmt.Sprintf("%s/%d@%d (row %s)", rec.Topic, rec.Partition, rec.Offset, rec.ID)
}

// checkPositions wants positions to grow along the commit order of each key,
// and to name one row each.
func (v *verifier) checkPositions() {
	for _, rows := range v.byKey {
		newest := map[string]*Record{} // by source
		for _, row := range rows {
			rec := v.firstRecord(row)
			if rec == nil {
				continue
			}
			if before := newest[rec.Source]; before != nil && rec.Position.Compare(before.Position) <= 0 {
				v.report.PositionErrors.add("%s was committed after %s, its position says otherwise", at(rec), at(before))
			}
			newest[rec.Source] = rec
		}
	}
	firsts := make([]*Record, 0, v.report.Delivered)
	for i := range v.first {
		if rec := v.firstRecord(int32(i)); rec != nil {
			firsts = append(firsts, rec)
		}
	}
	slices.SortFunc(firsts, func(a, b *Record) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), a.Position.Compare(b.Position))
	})
	for i := 1; i < len(firsts); i++ {
		if a, b := firsts[i-1], firsts[i]; a.Source == b.Source && a.Position == b.Position {
			v.report.PositionErrors.add("%s and %s have the same position", at(a), at(b))
		}
	}
}

// firstRecord returns the first occurrence of a row, if it has usable positions.
func (v *verifier) firstRecord(row int32) *Record {
	if v.first[row] == 0 {
		return nil
	}
	rec := &v.h.Records[v.first[row]-1]
	if rec.Missing&(MissingPosition|MissingSource) != 0 {
		return nil
	}
	return rec
}

// server is the part of a source under which LSNs compare: system id and timeline.
func server(source string) string {
	id, rest, _ := strings.Cut(source, ".")
	timeline, _, _ := strings.Cut(rest, ".")
	return id + "." + timeline
}

// arrivals are the first occurrences in one partition from one server, by offset.
type arrivals struct {
	records []*Record
	lowest  []uint64 // lowest[i] is the lowest LSN of records[i:]
}

// checkSamples looks for a confirmed position beyond a row that reached Kafka
// only later. A commit record that starts below the confirmed position is
// never sent again by the server; one that starts exactly there is.
func (v *verifier) checkSamples() {
	if len(v.h.Samples) == 0 {
		return
	}
	type place struct {
		Partition
		server string
	}
	places := map[place]*arrivals{}
	for i := range v.h.Records {
		rec := &v.h.Records[i]
		row, known := v.rows[rec.ID]
		if !known || v.firstRecord(row) != rec {
			continue
		}
		p := place{Partition{rec.Topic, rec.Partition}, server(rec.Source)}
		if places[p] == nil {
			places[p] = &arrivals{}
		}
		places[p].records = append(places[p].records, rec)
	}
	for _, a := range places {
		a.lowest = make([]uint64, len(a.records))
		for i := len(a.records) - 1; i >= 0; i-- {
			a.lowest[i] = a.records[i].Position.LSN
			if i+1 < len(a.records) {
				a.lowest[i] = min(a.lowest[i], a.lowest[i+1])
			}
		}
	}
	for _, s := range v.h.Samples {
		if s.Durable != 0 && s.Confirmed > s.Durable {
			v.report.ConfirmedEarly.add("slot confirmed to %X, progress row only to %X", s.Confirmed, s.Durable)
		}
		for p, a := range places {
			if p.server == s.Server {
				v.checkSample(s, s.Ends[p.Partition], a)
			}
		}
	}
}

func (v *verifier) checkSample(s Sample, end int64, a *arrivals) {
	later, _ := slices.BinarySearchFunc(a.records, end, func(rec *Record, end int64) int { return cmp.Compare(rec.Offset, end) })
	if later == len(a.records) || a.lowest[later] >= s.Confirmed {
		return
	}
	for _, rec := range a.records[later:] {
		if rec.Position.LSN < s.Confirmed {
			v.report.ConfirmedEarly.add("%s lies at %X, was not there yet when the slot was confirmed to %X", at(rec), rec.Position.LSN, s.Confirmed)
			return
		}
	}
}
