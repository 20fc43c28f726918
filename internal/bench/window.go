package main

import "time"

// pids are the processes that take part in a run; 0 means there is none.
type pids struct{ process, walsender, broker int }

// window is the time in which a run is measured.
type window struct {
	pids   pids
	start  time.Time
	before [3]usage
	noise  noise
}

// share is what one process took.
type share struct {
	CPU  float64 `json:"cpu_seconds_per_million_rows"`
	Peak float64 `json:"peak_rss_mib"`
}

// measurement is the result of one run.
type measurement struct {
	Rows      int     `json:"rows"`
	Seconds   float64 `json:"seconds"`
	Rate      float64 `json:"rows_per_second"`
	Process   share   `json:"process"`
	Walsender *share  `json:"walsender,omitempty"`
	Broker    *share  `json:"broker,omitempty"`
	Others    float64 `json:"cores_used_by_others"` // see noise
}

func (p pids) usages() (u [3]usage, err error) {
	for i, pid := range []int{p.process, p.walsender, p.broker} {
		if pid == 0 {
			continue
		}
		if u[i], err = usageOf(pid); err != nil {
			return u, err
		}
	}
	return u, nil
}

// openWindow starts to measure.
func openWindow(p pids) (w window, err error) {
	w = window{pids: p, start: time.Now()}
	if w.before, err = p.usages(); err != nil {
		return w, err
	}
	w.noise, err = watch()
	return w, err
}

// close ends the window and says what rows have cost.
func (w window) close(rows int) (measurement, error) {
	elapsed := time.Since(w.start)
	after, err := w.pids.usages()
	if err != nil {
		return measurement{}, err
	}
	m := measurement{Rows: rows, Seconds: elapsed.Seconds(), Rate: float64(rows) / elapsed.Seconds()}
	shareOf := func(i int) share {
		cpu := after[i].cpu - w.before[i].cpu
		return share{CPU: cpu.Seconds() * 1e6 / float64(rows), Peak: mib(after[i].peak)}
	}
	m.Process = shareOf(0)
	if w.pids.walsender != 0 {
		m.Walsender = new(shareOf(1))
	}
	if w.pids.broker != 0 {
		m.Broker = new(shareOf(2))
	}
	m.Others, err = w.noise.others()
	return m, err
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
