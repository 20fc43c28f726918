package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in proc(5): USER_HZ is 100 on every architecture
// that we run on.
const tick = 10 * time.Millisecond

// usage is what a process has taken since its start.
type usage struct {
	cpu  time.Duration // user and system, of all threads
	peak int64         // highest resident set, in bytes
}

// process is a line of /proc/<pid>/stat.
type process struct {
	parent int
	own    time.Duration // user and system, of all threads
	ended  time.Duration // the same of its children that have ended
}

func processOf(pid int) (p process, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, fmt.Errorf("read CPU time: %w", err)
	}
	// The name in brackets may hold blanks and brackets. After it comes field 3
	// of proc(5); 4 is ppid, 14 to 17 are utime, stime, cutime, cstime.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 15 {
		return p, fmt.Errorf("read CPU time: %q", stat)
	}
	var n [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} {
		if n[i], err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return p, fmt.Errorf("read CPU time: %w", err)
		}
	}
	return process{int(n[0]), time.Duration(n[1]+n[2]) * tick, time.Duration(n[3]+n[4]) * tick}, nil
}

// usageOf reads the usage of a process that runs.
func usageOf(pid int) (u usage, err error) {
	p, err := processOf(pid)
	if err != nil {
		return u, err
	}
	u.cpu = p.own
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return u, fmt.Errorf("read memory: %w", err)
			}
			u.peak = kib << 10
		}
	}
	return u, nil
}

// pause waits for d or for ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poll calls f every interval until it reports true or fails.
func poll(ctx context.Context, interval time.Duration, f func() (bool, error)) error {
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		if err := pause(ctx, interval); err != nil {
			return err
		}
	}
}
