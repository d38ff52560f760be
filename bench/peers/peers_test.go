package peers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-run/drover/bench/load"
)

// TestAppsOfPeers checks that each peer in Python has an app, and a command for each kind of work.
func TestAppsOfPeers(t *testing.T) {
	dir := t.TempDir()
	if err := writeApps(dir); err != nil {
		t.Fatal(err)
	}
	listed, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, kind := range p.kinds {
			if args, _ := p.command(load.Cell{Work: kind, Time: time.Millisecond}); len(args) == 0 {
				t.Errorf("%s has no command for %s", p.name, kind)
			}
		}
		if brokerStarts[p.broker] == nil {
			t.Errorf("%s has the unknown broker %s", p.name, p.broker)
		}
		if p.language != "python" {
			continue
		}
		app := strings.ToLower(p.name) + "_app"
		if _, err := os.Stat(filepath.Join(dir, app+".py")); err != nil {
			t.Error(err)
		}
		args, _ := p.command(load.Cell{Work: load.CPU})
		if !strings.Contains(strings.Join(args, " "), app) {
			t.Errorf("the command of %s does not run %s: %q", p.name, app, args)
		}
		for _, name := range p.packages {
			if !strings.Contains(string(listed), "\n"+name+"==") && !strings.Contains(string(listed), "\n"+name+"[") {
				t.Errorf("requirements.txt does not list %s", name)
			}
		}
	}
}

func TestPeerThatIsNotInstalled(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PATH", t.TempDir())
	e := &environment{venv: filepath.Join(t.TempDir(), "venv"), gopeers: filepath.Join(t.TempDir(), "gopeers")}
	for _, p := range all {
		_, install := e.find(t.Context(), p)
		if p.broker == "postgres" && strings.Contains(install, "go") {
			continue // Debian's PostgreSQL is not on the path
		}
		want := map[string]string{"nats": "pip install -r " + requirements, "redis": "apt-get install redis-server", "postgres": "apt-get install postgresql"}[p.broker]
		if p.language == "go" && p.broker == "nats" {
			want = "go -C " + goPeers + " build"
		}
		if !strings.Contains(install, want) {
			t.Errorf("%s: %q; want %q", p.name, install, want)
		}
	}
}

func TestUnknownRowsAndPeers(t *testing.T) {
	for want, c := range map[string]Command{
		"--rows 5ms is unknown":     {Rows: []string{"5ms"}, Rounds: 1, For: time.Second},
		"--only Sidekiq is unknown": {Only: []string{"Sidekiq"}, Rounds: 1, For: time.Second},
		"--drover dover is unknown": {Drover: []string{"dover"}, Rounds: 1, For: time.Second},
		"--rounds must":             {For: time.Second},
	} {
		if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestNoPeerIsInstalled(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PATH", t.TempDir())
	c := Command{Only: []string{"taskiq"}, Venv: t.TempDir(), Rounds: 1, For: time.Second}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no peer is installed") {
		t.Errorf("got %v", err)
	}
}

// TestAhead compares a peer with the best of drover's settings of its language.
func TestAhead(t *testing.T) {
	contenders := []load.Contender{{Name: "drover"}, {Name: "drover-nats"}, {Name: "drover-go"}, {Name: "taskiq"}, {Name: "Watermill"}}
	at := func(rates ...float64) (out []load.Result) {
		for _, rate := range rates {
			out = append(out, load.Result{PerSecond: rate, WorkerCPU: time.Duration(1e9 / rate)})
		}
		return out
	}
	results := map[string][]load.Result{
		"drover": at(90, 80, 100), "drover-nats": at(95, 96, 97), "drover-go": at(500, 500, 500),
		"taskiq": at(100, 100, 100), "Watermill": at(400, 400, 400),
	}
	lines := aheadOf(rowCells["1ms"], contenders, results)
	want := []string{
		"taskiq is ahead in messages/s: the best of drover has 0.96 of it",
		"taskiq is ahead in CPU with broker: the best of drover needs 1.04 times as much",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}
