package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Machines are shared. What others do meanwhile is measured beside every run;
// a run waits for a quiet moment, and one that was disturbed is made again, as
// long as patience lasts.

const (
	// disturbed is how many cores others may use.
	disturbed = 0.3
	// patience is for the whole bench.
	patience = 2 * time.Minute
	// settleTime lets servers finish what they do behind their last answer, so
	// that one run does not pay for the one before. Others are watched meanwhile.
	settleTime = 300 * time.Millisecond
)

// noise watches what other processes do.
type noise struct {
	start      time.Time
	busy, ours time.Duration
}

func watch() (n noise, err error) {
	n.start = time.Now()
	if n.ours, err = familyCPU(); err != nil {
		return n, err
	}
	n.busy, err = machineCPU()
	return n, err
}

// others is how many cores other processes have used since, on average.
func (n noise) others() (float64, error) {
	busy, err := machineCPU()
	if err != nil {
		return 0, err
	}
	ours, err := familyCPU()
	if err != nil {
		return 0, err
	}
	return max((busy-n.busy-(ours-n.ours)).Seconds()/time.Since(n.start).Seconds(), 0), nil
}

// settle waits for a quiet moment, or for as long as patience lasts.
func (b *bench) settle(ctx context.Context) error {
	for {
		n, err := watch()
		if err != nil {
			return err
		}
		if err := pause(ctx, settleTime); err != nil {
			return err
		}
		others, err := n.others()
		if err != nil || others <= disturbed || b.patience <= 0 {
			return err
		}
		b.patience -= settleTime
	}
}

// calmly makes a run, and makes it again if it was disturbed. It gives each run
// a name of its own.
func (b *bench) calmly(ctx context.Context, part string, run func(name string) (others float64, err error)) error {
	for {
		if err := b.settle(ctx); err != nil {
			return err
		}
		start := time.Now()
		b.runs++
		others, err := run(part + "-" + strconv.Itoa(b.runs))
		if err != nil || others <= disturbed || b.patience <= 0 {
			return err
		}
		b.patience -= time.Since(start)
		b.say("again: other processes used %.2f cores", others)
	}
}

// machineCPU is the time for which the machine's cores were at work, or were
// taken away by the host, since its start.
func machineCPU() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, fmt.Errorf("read the machine's CPU time: %q", line)
	}
	var busy time.Duration
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the machine's CPU time: %w", err)
		}
		if i != 3 && i != 4 {
			busy += time.Duration(n) * tick
		}
	}
	return busy, nil
}

// familyCPU is the CPU time of this process and all that descend from it.
func familyCPU() (total time.Duration, err error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	all := map[int]process{}
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			return 0, err
		}
		if p, err := processOf(pid); err == nil { // it may have ended meanwhile
			all[pid] = p
		}
	}
	for pid, p := range all {
		if descends(all, pid, os.Getpid()) {
			total += p.own + p.ended
		}
	}
	return total, nil
}

func descends(all map[int]process, pid, from int) bool {
	for pid > 1 && pid != from {
		pid = all[pid].parent
	}
	return pid == from
}
