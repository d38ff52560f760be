package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// childDir is the environment variable with the directory of a child process.
const childDir = "DROVER_TEST_RECORD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		runChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// noted is a file that reports each write.
type noted struct {
	file
	wrote chan struct{}
}

func (n noted) Write(b []byte) (int, error) {
	size, err := n.file.Write(b)
	n.wrote <- struct{}{}
	return size, err
}

// runChild holds leases until it is killed. It prints a line when they are in the file.
func runChild(dir string) {
	r, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	inFile := func(tokens ...string) bool {
		text, _ := os.ReadFile(filepath.Join(dir, "leases"))
		found, err := decode(text)
		var got []string
		for _, l := range found.leases {
			got = append(got, l.token)
		}
		return err == nil && slices.Equal(got, tokens)
	}
	await := func(tokens ...string) {
		for !inFile(tokens...) {
			time.Sleep(time.Millisecond)
		}
	}
	var entries [5]Entry
	later := time.Now().Add(time.Hour)
	orders, mails := r.Source("orders"), r.Source("mails")
	orders.Hold(&entries[0], "a", "first", later)
	await("first")
	orders.Hold(&entries[1], "settled", "settled", later)
	await("first", "settled")
	mails.Hold(&entries[2], "b", "", later)
	await("first", "settled", "")
	mails.Hold(&entries[3], "expires", "expires", time.Now().Add(writeEvery/2))
	orders.Drop(&entries[1])
	orders.Hold(&entries[0], "a", "renewed", later)
	await("renewed", "", "expires")
	orders.Hold(&entries[4], "c", "t", later)
	await("renewed", "", "expires", "t")
	fmt.Println("written")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
}

// A process that is killed leaves its leases: as they were renewed, and without those that have ended or
// expired. Its lock is free. After a stop nothing is left.
func TestADaemonThatIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "written\n" {
		t.Errorf("the child printed %q, %v", line, err)
	}
	if _, err := Open(dir, testLog(t)); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "data_dir of its own") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	r := reopen(t, dir)
	orders, mails := r.Source("orders"), r.Source("mails")
	want(t, orders, "a renewed", "c t")
	want(t, orders) // once
	left := want(t, mails, "b ")
	mails.Drop(left[0])
	closeRecord(t, r) // two are not dropped, as where the source cannot be reached
	r = reopen(t, dir)
	want(t, r.Source("mails"))
	for _, e := range want(t, r.Source("orders"), "a renewed", "c t") {
		r.Source("orders").Drop(e)
	}
	closeRecord(t, r)
	if _, err := os.Stat(filepath.Join(dir, "leases")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a daemon without leases left a file: %v", err)
	}
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func reopen(t *testing.T, dir string) *Record {
	t.Helper()
	r, err := Open(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func closeRecord(t *testing.T, r *Record) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// want compares what a killed daemon left, each as "ID token".
func want(t *testing.T, s *Source, want ...string) []*Entry {
	t.Helper()
	left := s.Left()
	var got []string
	for _, e := range left {
		got = append(got, e.ID()+" "+e.Token())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	return left
}

// leave leaves a directory with a lease, as a daemon does that cannot release it at its end.
func leave(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	r := reopen(t, dir)
	r.Source("orders").Hold(new(Entry), "a", "t", time.Now().Add(time.Hour))
	closeRecord(t, r)
	return dir
}

// The leases in a copy of the directory belong to the daemon that uses the original.
func TestACopyOfTheDirectory(t *testing.T) {
	t.Parallel()
	dir, other := leave(t), t.TempDir()
	living := reopen(t, dir)
	if err := os.CopyFS(filepath.Join(other, "copy"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	copied := reopen(t, filepath.Join(other, "copy"))
	want(t, copied.Source("orders"))
	want(t, living.Source("orders"), "a t")
	closeRecord(t, copied)
	closeRecord(t, living)

	moved := filepath.Join(other, "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Skipf("the directory cannot be moved: %v", err)
	}
	r := reopen(t, moved)
	want(t, r.Source("orders"), "a t")
	closeRecord(t, r)
}

// rewrite replaces the header of a file.
func rewrite(t *testing.T, dir string, change func(h *header)) {
	t.Helper()
	path := filepath.Join(dir, "leases")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := cutFrame(text)
	change(&found.head)
	if err := os.WriteFile(path, append(appendHeader(nil, found.head), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsThatAreIgnored(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"another boot": func(t *testing.T, dir string) {
			rewrite(t, dir, func(h *header) { h.Place = "0c8f9b1e-another-boot " + strings.Fields(h.Place)[1] })
		},
		"another directory": func(t *testing.T, dir string) {
			rewrite(t, dir, func(h *header) { h.Place = strings.Fields(h.Place)[0] + " 1:1" })
		},
		"from the future": func(t *testing.T, dir string) { rewrite(t, dir, func(h *header) { h.Opened += time.Hour }) },
		"empty":           func(t *testing.T, dir string) { overwrite(t, dir, nil) },
		"something else":  func(t *testing.T, dir string) { overwrite(t, dir, bytes.Repeat([]byte("xyz\n"), 1000)) },
		"no header":       func(t *testing.T, dir string) { overwrite(t, dir, finishFrame(append(beginFrame(nil), '{'), 0)) },
		"a directory": func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(filepath.Join(dir, "leases")), os.Mkdir(filepath.Join(dir, "leases"), 0o700)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := leave(t)
			spoil(t, dir)
			r := reopen(t, dir)
			want(t, r.Source("orders"))
			closeRecord(t, r)
		})
	}
}

func overwrite(t *testing.T, dir string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "leases"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A file that was cut off at any byte, or in which any byte was changed, has the leases of its intact
// frames, and of no damaged one.
func TestATornRecord(t *testing.T) {
	t.Parallel()
	text := appendHeader(nil, header{Place: "here", Opened: 1})
	ends, states := []int{len(text)}, []string{""}
	for i, frame := range [][]byte{
		appendHold(appendHold(appendSource(nil, 1, "orders"), 2, 1, time.Hour, "a", "1"), 3, 1, time.Hour, "b", ""),
		appendDrop(nil, 3),
		appendHold(nil, 2, 1, 2*time.Hour, "a", "2"),
	} {
		text = finishFrame(append(beginFrame(text), frame...), len(text))
		ends, states = append(ends, len(text)), append(states, []string{"a 1, b ", "a 1", "a 2"}[i])
	}
	check := func(text []byte, intact int, what string) {
		t.Helper()
		found, err := decode(text)
		if intact < 0 {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
			return
		}
		var got []string
		for _, l := range found.leases {
			if l.source != "orders" {
				t.Errorf("%s: source %q", what, l.source)
			}
			got = append(got, l.id+" "+l.token)
		}
		if state := strings.Join(got, ", "); err != nil || state != states[intact] {
			t.Errorf("%s: %q, %v; want %q", what, state, err, states[intact])
		}
	}
	for n := range len(text) {
		intact := -1
		for intact+1 < len(ends) && ends[intact+1] <= n {
			intact++
		}
		check(text[:n], intact, fmt.Sprintf("cut at %d", n))
		damaged := bytes.Clone(text)
		damaged[n] ^= 0x41
		check(damaged, intact, fmt.Sprintf("damaged at %d", n))
	}
	check(text, len(states)-1, "whole")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{opHold, 1, 2})
	f.Add(appendHold(appendSource(nil, 1, "s"), 2, 1, time.Hour, "a", "t"))
	f.Add([]byte{opSource, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(_ *testing.T, operations []byte) {
		text := appendHeader(nil, header{Place: "here"})
		_, _ = decode(finishFrame(append(beginFrame(text), operations...), len(text)))
	})
}

// A lease expires by the clock that shows less time: a suspend stops one, and a change of the time moves
// the other.
func TestExpiryByTwoClocks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	until := now.Add(time.Minute)
	if left := remaining(until, now.Add(20*time.Second)); left != 40*time.Second {
		t.Errorf("left: %v", left)
	}
	wall := now.Round(0).Add(50 * time.Second) // without Go's monotonic clock
	if left := remaining(until, wall); left != 10*time.Second {
		t.Errorf("left after a suspend: %v", left)
	}
}

// A message that kills the daemon is not given to it at once for ever.
func TestDaemonsThatDieSoon(t *testing.T) {
	t.Parallel()
	dir := leave(t)
	for range maxDeaths {
		now, err := sinceBoot()
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, dir, func(h *header) { h.Opened = now })
		r := reopen(t, dir)
		want(t, r.Source("orders"), "a t")
		closeRecord(t, r) // the lease is still held
	}
	r := reopen(t, dir)
	want(t, r.Source("orders"))
	r.Source("orders").Hold(new(Entry), "b", "t", time.Now().Add(time.Hour))
	closeRecord(t, r)
	rewrite(t, dir, func(h *header) { h.Opened -= soon }) // this one lived longer
	r = reopen(t, dir)
	want(t, r.Source("orders"), "b t")
	closeRecord(t, r)
}

// stuckFile blocks in each write until it is freed.
type stuckFile struct {
	file
	writing chan struct{}
	free    chan struct{}
}

func (s stuckFile) Write(b []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.free
	return s.file.Write(b)
}

// A disk that does not answer delays no lease, and the end of the daemon by closeLimit only.
func TestASlowDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		writing, free := make(chan struct{}), make(chan struct{})
		r, err := open(dir, testLog(t), func(path string) (file, error) {
			f, err := createFile(path)
			return stuckFile{f, writing, free}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		s := r.Source("orders")
		s.Hold(new(Entry), "a", "t", time.Now().Add(time.Hour))
		<-writing
		began := time.Now()
		for range 3 * batch {
			var e Entry
			s.Hold(&e, "b", "t", time.Now().Add(time.Hour))
			s.Drop(&e)
		}
		if len(s.Left()) != 0 || time.Since(began) != 0 { // the time of the bubble moves when all wait
			t.Errorf("leases waited %v for the disk", time.Since(began))
		}
		closeRecord(t, r)
		if took := time.Since(began); took != closeLimit {
			t.Errorf("the end took %v", took)
		}
		close(free)
		for ended := false; !ended; {
			select {
			case <-writing:
			case <-r.stopped:
				ended = true
			}
		}
		if err := r.lock.Close(); err != nil {
			t.Error(err)
		}
	})
}

// fullFile has no room while full is set.
type fullFile struct {
	file
	full *atomic.Bool
}

func (f fullFile) Write(b []byte) (int, error) {
	if f.full.Load() {
		n, _ := f.file.Write(b[:len(b)/2])
		return n, syscall.ENOSPC
	}
	return f.file.Write(b)
}

// A full disk leaves no file whose leases have ended meanwhile. With room, all leases are recorded again.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "leases")
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		r, err := open(dir, testLog(t), func(path string) (file, error) {
			f, err := createFile(path)
			return fullFile{f, &full}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		s, later := r.Source("orders"), time.Now().Add(time.Hour)
		var a, b, c Entry
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		s.Hold(&a, "a", "t", later)
		s.Hold(&b, "b", "t", later)
		wait(writeEvery)
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		s.Drop(&a)
		wait(writeEvery)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is left: %v", err)
		}
		s.Hold(&c, "c", "t", later)
		wait(10 * retryFirst)
		full.Store(false)
		wait(retrySeldom)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found, err := decode(text)
		if err != nil || len(found.leases) != 2 || found.leases[0].id != "b" || found.leases[1].id != "c" {
			t.Errorf("recorded: %+v, %v", found.leases, err)
		}
		s.Drop(&b)
		s.Drop(&c)
		closeRecord(t, r)
	})
}

// The file and the leases in it are bounded, and a source with more leases than are recorded works.
func TestBoundsOfARecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wrote := make(chan struct{}, 1)
	r, err := open(dir, testLog(t), func(path string) (file, error) {
		f, err := createFile(path)
		return noted{f, wrote}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, later := r.Source("orders"), time.Now().Add(time.Hour)
	long := strings.Repeat("x", 1000)
	var largest int64
	for range 30 { // each round is more than minFile
		entries := make([]Entry, 300)
		for i := range entries {
			s.Hold(&entries[i], "", long, later)
		}
		<-wrote
		if at, err := os.Stat(filepath.Join(dir, "leases")); err == nil {
			largest = max(largest, at.Size())
		}
		for i := range entries {
			s.Drop(&entries[i])
		}
	}
	if most := int64((growth + 1) * 300 * 1100); largest > most {
		t.Errorf("the file had %d bytes, more than %d", largest, most)
	}
	go func() {
		for range wrote { // until it is closed
		}
	}()
	defer close(wrote)
	var tooLong Entry
	s.Hold(&tooLong, "", strings.Repeat("x", maxToken+1), later)
	entries := make([]Entry, maxLeases+10)
	for i := range entries {
		s.Hold(&entries[i], "a", "t", later)
	}
	closeRecord(t, r)
	r = reopen(t, dir)
	if left := r.Source("orders").Left(); len(left) != maxLeases {
		t.Errorf("%d leases are recorded", len(left))
	}
	closeRecord(t, r)
}

// A daemon that cannot record its leases has a nil Record.
func TestNoRecord(t *testing.T) {
	t.Parallel()
	var r *Record
	s := r.Source("orders")
	s.Hold(new(Entry), "a", "t", time.Now())
	s.Drop(new(Entry))
	if s.Left() != nil || r.Close() != nil {
		t.Error("a nil Record does something")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "leases"), testLog(t)); err == nil || !strings.Contains(err.Error(), "making the directory for the record of leases") {
		t.Errorf("a directory that cannot be made: %v", err)
	}
}

// The cost of a message that is settled before its lease is written.
func BenchmarkHoldAndDrop(b *testing.B) {
	r, err := Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	s, until := r.Source("orders"), time.Now().Add(time.Hour)
	var e Entry
	b.ReportAllocs()
	for b.Loop() {
		s.Hold(&e, "", "$JS.ACK.ORDERS.billing.1.1.1.1.1", until)
		s.Drop(&e)
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
