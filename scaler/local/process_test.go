package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/scaler"
	"github.com/drover-run/drover/scaler/local"
	"github.com/drover-run/drover/scaler/provisionertest"
)

const (
	patience = 3 * time.Minute
	pace     = 5 * time.Millisecond
)

// asInstance is the variable with which this test's program runs as an instance; its value selects
// the behavior.
const asInstance = "DROVER_TEST_INSTANCE"

func TestMain(m *testing.M) {
	if how := os.Getenv(asInstance); how != "" {
		if err := instance(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// greeting has the initial settings of an instance.
type greeting struct {
	ID  int
	Dir string
}

// instance is an instance: SIGUSR1 gives it work, SIGUSR2 finishes the work.
func instance(how string) error {
	switch how {
	case "fails":
		return errors.New("no luck")
	case "stuck":
		never := make(chan os.Signal, 1)
		signal.Notify(never, syscall.SIGUSR1)
		<-never
	}
	link, err := local.Attach(os.LookupEnv)
	if err != nil {
		return err
	}
	var g greeting
	if err := json.Unmarshal(link.Hello, &g); err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	note := func(what string) error {
		return os.WriteFile(filepath.Join(g.Dir, what+"-"+strconv.Itoa(os.Getpid())), nil, 0o600)
	}
	if err := note("alive"); err != nil {
		return err
	}
	if err := link.Report(0, g); err != nil {
		return err
	}
	drain, busy := link.DrainRequested(), false
	for {
		select {
		case s := <-signals:
			if busy = s == syscall.SIGUSR1; !busy {
				if err := note("finished"); err != nil {
					return err
				}
			}
		case <-drain:
			if drain = nil; how == "deaf" {
				continue
			}
		}
		if drain == nil && !busy && how != "deaf" {
			return link.Close()
		}
		in := int64(0)
		if busy {
			in = 1
		}
		if err := link.Report(in, g); err != nil && drain != nil {
			return err
		}
	}
}

// bed has the files of the instances in a directory.
type bed struct {
	dir     string
	p       *local.Provisioner
	reports *reports
	stop    func()
}

// reports are the reports of instances, by ID.
type reports struct {
	mu   sync.Mutex
	said map[int]greeting
	gone int
}

func (b *bed) Open(t *testing.T) (scaler.Provisioner, func()) {
	b.open(t, "well", nil)
	return b.p, b.stop
}

func (b *bed) open(t *testing.T, how string, change func(c *local.Config)) {
	t.Helper()
	b.reports = &reports{said: make(map[int]greeting)}
	said := b.reports
	cfg := local.Config{
		Command: local.Command{Path: os.Args[0], Env: append(os.Environ(), asInstance+"="+how, "GORACE=atexit_sleep_ms=0"), Stdout: t.Output(), Stderr: t.Output()},
		Hello: func(id int) (json.RawMessage, error) {
			return json.Marshal(greeting{id, b.dir})
		},
		Reported: func(id int, load json.RawMessage) {
			var g greeting
			if err := json.Unmarshal(load, &g); err != nil {
				t.Error(err)
			}
			said.mu.Lock()
			defer said.mu.Unlock()
			said.said[id] = g
		},
		Gone: func(int, error) {
			said.mu.Lock()
			defer said.mu.Unlock()
			said.gone++
		},
		StartLimit: patience, DrainLimit: patience, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	p := local.New(cfg)
	b.p = p
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(b.stop)
}

func (b *bed) Crash(t *testing.T) {
	t.Helper()
	b.p.Vanish()
	b.stop()
}

func (b *bed) Running(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pid := range b.noted(t, "alive") {
		if syscall.Kill(pid, 0) == nil {
			out = append(out, strconv.Itoa(pid))
		}
	}
	return out
}

func (b *bed) noted(t *testing.T, what string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if text, found := strings.CutPrefix(e.Name(), what+"-"); found {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func (b *bed) signal(t *testing.T, name string, s syscall.Signal) int {
	t.Helper()
	pid, err := strconv.Atoi(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Error(err)
	}
	return pid
}

func (b *bed) Busy(t *testing.T, name string) (finish func()) {
	t.Helper()
	pid := b.signal(t, name, syscall.SIGUSR1)
	eventually(t, "the report of something in flight", func() bool { return b.p.InFlight(pid) == 1 })
	return func() { b.signal(t, name, syscall.SIGUSR2) }
}

func (b *bed) Finished(t *testing.T) int { return len(b.noted(t, "finished")) }

func (b *bed) Kill(t *testing.T, name string) { b.signal(t, name, syscall.SIGKILL) }

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestConformance(t *testing.T) {
	provisionertest.Run(t, func(t *testing.T) provisionertest.Bed { return &bed{dir: t.TempDir()} })
}

func count(t *testing.T, p *local.Provisioner) scaler.Count {
	t.Helper()
	c, err := p.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func set(t *testing.T, p *local.Provisioner, n int) {
	t.Helper()
	if err := p.Set(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

func TestAnInstanceThatWillNotStart(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "fails", nil)
	set(t, b.p, 1)
	err := b.p.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "instance 1 ended before it was ready: exit status 3") {
		t.Errorf("got %v", err)
	}
	if c := count(t, b.p); c.Failing == "" || c.Ready != 0 {
		t.Errorf("%+v; want a report that it fails", c)
	}
	b.stop() // it does not wait for what cannot start
}

func TestAProgramThatIsNotThere(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "well", func(c *local.Config) { c.Command.Path = filepath.Join(b.dir, "nothing") })
	set(t, b.p, 1)
	if err := b.p.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "an instance cannot be started") {
		t.Errorf("got %v", err)
	}
}

func TestAGreetingThatCannotBeMade(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "well", func(c *local.Config) {
		c.Hello = func(int) (json.RawMessage, error) { return nil, errors.New("speechless") }
	})
	set(t, b.p, 1)
	if err := b.p.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "speechless") {
		t.Errorf("got %v", err)
	}
}

func TestAnInstanceThatHangsAtItsStart(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "stuck", func(c *local.Config) { c.StartLimit = 100 * time.Millisecond })
	set(t, b.p, 1)
	if err := b.p.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "it was not ready within 100ms") {
		t.Errorf("got %v", err)
	}
}

func TestAnInstanceThatHangsWhileItDrains(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "deaf", func(c *local.Config) { c.DrainLimit = 100 * time.Millisecond })
	set(t, b.p, 1)
	if err := b.p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(t, b.p, 0)
	eventually(t, "it was killed", func() bool { return count(t, b.p) == scaler.Count{StartUp: count(t, b.p).StartUp} })
	if n := len(b.Running(t)); n != 0 {
		t.Errorf("%d still run", n)
	}
}

func TestReportsReachTheScaler(t *testing.T) {
	b := &bed{dir: t.TempDir()}
	b.open(t, "well", nil)
	set(t, b.p, 2)
	eventually(t, "both", func() bool { return count(t, b.p).Ready == 2 })
	b.reports.mu.Lock()
	for id := 1; id <= 2; id++ {
		if g := b.reports.said[id]; g.ID != id || g.Dir != b.dir {
			t.Errorf("instance %d says %+v", id, g)
		}
	}
	b.reports.mu.Unlock()
	if pids := b.p.PIDs(); len(pids) != 2 || pids[1] == 0 || pids[2] == 0 {
		t.Errorf("the processes are %v", pids)
	}
	b.stop()
	if b.reports.gone != 2 {
		t.Errorf("%d of 2 were reported as ended", b.reports.gone)
	}
}
