// Package proc reads what processes use: CPU time, context switches, memory (from /proc, on
// Linux), and system calls (by perf, or else strace).
package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what processes have used so far.
type Usage struct {
	CPU      time.Duration // user and system, in steps of 10 ms
	Switches int64         // context switches of the threads that live
}

// Sub returns the usage since before.
func (u Usage) Sub(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.Switches - before.Switches}
}

// Sum adds up the usage of processes. One that has ended is left out.
func Sum(pids []int) (sum Usage, err error) {
	for _, pid := range pids {
		cpu, _, err := Stat(pid)
		if isGone(err) {
			continue
		}
		if err != nil {
			return Usage{}, err
		}
		switches, err := switchesOf(pid)
		if err != nil {
			return Usage{}, err
		}
		sum.CPU += cpu
		sum.Switches += switches
	}
	return sum, nil
}

// Stat returns the CPU time of a process, in steps of 10 ms, and its resident bytes.
func Stat(pid int) (cpu time.Duration, rss int64, err error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, 0, err
	}
	// utime and stime are fields 14 and 15, in ticks of 10 ms, the resident pages field 24 (proc(5)).
	var values [3]int64
	for i, at := range []int{14, 15, 24} {
		if values[i], err = strconv.ParseInt(fields[at-3], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("reading /proc/%d/stat: %w", pid, err)
		}
	}
	return time.Duration(values[0]+values[1]) * 10 * time.Millisecond, values[2] * int64(os.Getpagesize()), nil
}

// statFields are the fields of /proc/PID/stat from the third one on: the name before them, in
// parentheses, may hold anything.
func statFields(pid int) ([]string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields)+2)
	}
	return fields, nil
}

func switchesOf(pid int) (n int64, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, thread := range threads {
		for _, name := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			value, err := readField(thread, name)
			if isGone(err) {
				continue
			}
			if err != nil {
				return 0, err
			}
			n += value
		}
	}
	return n, nil
}

// Memory returns the proportional memory (PSS) of processes in bytes: a page that several
// processes share counts once.
func Memory(pids []int) (sum int64, err error) {
	for _, pid := range pids {
		kB, err := readField(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if isGone(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		sum += kB << 10
	}
	return sum, nil
}

// readField returns the number after a name at the start of a line.
func readField(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), name); found {
			return strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %q", file, name)
}

// isGone reports whether an error means that the process has ended.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process")
}

// Tree returns a process and its descendants.
func Tree(root int) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		fields, err := statFields(pid)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], pid)
	}
	pids = []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}
