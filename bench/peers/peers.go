// Package peers is the command that measures drover beside other systems that run functions on
// messages: all that are installed, in turns, in one run, with the same work.
package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-run/drover/bench/load"
	"github.com/drover-run/drover/bench/proc"
)

// Command is the command.
type Command struct {
	Rows    []string      `default:"noop,10kB,1ms,10ms,waits,awaits,latency,memory" help:"Rows: noop, 10kB, 1ms, 10ms, waits, awaits (100 ms each), latency (at 50/s), memory (1,000 in flight)."`
	Only    []string      `help:"Peers, by their names, such as taskiq; by default all that are installed. drover always takes part."`
	Drover  []string      `help:"drover's settings: drover, drover-nats, drover-sized, drover-go, drover-go-nats; by default all that fit the row."`
	Rounds  int           `default:"3" help:"Rounds; each measures each setup once, in an order that turns."`
	Warm    time.Duration `default:"2s" help:"Time before the window."`
	For     time.Duration `default:"3s" help:"The window. That of latency is four times as long."`
	Venv    string        `help:"Virtual environment of the peers in Python; by default drover-bench/venv in the user's cache directory."`
	Gopeers string        `help:"Program of the peers in Go, if it is built: GOWORK=off go -C bench/peers/testdata/gopeers build; by default the command builds it."`
	List    bool          `help:"Print which peers are installed, their versions and settings, and measure nothing."`
}

// Help adds to the help.
func (c *Command) Help() string {
	return `A peer that is not installed is left out; the first lines say what installs it. One that
fails is named, and left out of its row; the command then ends with status 1.

Peers run with their own default streams on NATS (retention limits), drover with the work queue that
it creates. drover-nats has its NATS server in a process of its own, as the peers on NATS have it.`
}

// rowCells are the rows by their names.
var rowCells = map[string]load.Cell{
	"noop":    {Work: load.CPU, Size: 128},
	"10kB":    {Work: load.CPU, Size: 10_000},
	"1ms":     {Work: load.CPU, Time: time.Millisecond, Size: 128},
	"10ms":    {Work: load.CPU, Time: 10 * time.Millisecond, Size: 128},
	"waits":   {Work: load.Wait, Time: 100 * time.Millisecond, Size: 128},
	"awaits":  {Work: load.Awaits, Time: 100 * time.Millisecond, Size: 128},
	"latency": {Work: load.CPU, Size: 128, Rate: 50},
}

// setting is drover with its settings.
type setting struct {
	name     string
	settings load.Drover
}

// ours are drover's settings. drover finds its numbers itself, except in drover-sized.
var ours = []setting{
	{"drover", load.Drover{Language: "python", InFlight: 4000}},
	{"drover-sized", load.Drover{Language: "python", Sized: true, InFlight: 8000}},
	{"drover-nats", load.Drover{Language: "python", External: true, InFlight: 4000}},
	{"drover-go", load.Drover{Language: "go", InFlight: mostInFlight}},
	{"drover-go-nats", load.Drover{Language: "go", External: true, InFlight: mostInFlight}},
}

const (
	// mostInFlight is how many messages of a function that waits a system may have in flight, if that is
	// only a number: River has as many.
	mostInFlight = 10_000
	// findsNumbers is how long drover runs a function that waits before it is measured, if it finds its
	// numbers itself.
	findsNumbers = 23 * time.Second
)

// Run measures and prints one table a row.
func (c *Command) Run(ctx context.Context) (err error) {
	if c.Rounds < 1 || c.For <= 0 || c.Warm < 0 {
		return errors.New("--rounds must be at least 1, --for more than 0s, --warm at least 0s")
	}
	for _, name := range c.Rows {
		if _, known := rowCells[name]; !known && name != "memory" {
			return fmt.Errorf("--rows %s is unknown: use noop, 10kB, 1ms, 10ms, waits, awaits, latency or memory", name)
		}
	}
	for _, name := range c.Drover {
		if !slices.ContainsFunc(ours, func(o setting) bool { return o.name == name }) {
			return fmt.Errorf("--drover %s is unknown: use drover, drover-nats, drover-sized, drover-go or drover-go-nats", name)
		}
	}
	for _, name := range c.Only {
		if !slices.ContainsFunc(all, func(p peer) bool { return strings.EqualFold(p.name, name) }) {
			return fmt.Errorf("--only %s is unknown: use FastStream, taskiq, Dramatiq, Huey, Celery, Watermill or River", name)
		}
	}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, installed, err := c.findPeers(ctx, dir)
	if err != nil || c.List {
		return err
	}
	if len(installed) == 0 {
		return errors.New("no peer is installed: the lines above say how each is installed")
	}
	options := load.Options{Warm: c.Warm, Window: c.For, Syscalls: proc.FindSyscallCounter(ctx)}
	turns := &rounds{n: c.Rounds}
	for _, name := range c.Rows {
		if name == "memory" {
			err = c.memory(ctx, turns, e, installed)
		} else {
			err = c.row(ctx, turns, e, installed, name, options)
		}
		if err != nil {
			return err
		}
	}
	return turns.end()
}

// row measures one row.
func (c *Command) row(ctx context.Context, turns *rounds, e *environment, installed []peer, name string, options load.Options) error {
	cell := rowCells[name]
	if cell.Rate > 0 {
		options.Window *= 4
	}
	results := make(map[string][]load.Result)
	contenders, err := turns.measure(ctx, name, c.contenders(e, installed, cell), func(of load.Contender) error {
		one, err := load.Measure(ctx, of, cell, options)
		if err == nil {
			results[of.Name] = append(results[of.Name], one)
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("\n%s, %d rounds\n\n", cell, c.Rounds)
	return printRow(cell, contenders, results)
}

// contenders are drover's settings and the peers that fit a cell.
func (c *Command) contenders(e *environment, installed []peer, cell load.Cell) (out []load.Contender) {
	has := func(language string) bool {
		return slices.ContainsFunc(installed, func(p peer) bool { return p.language == language && fits(p, cell) })
	}
	for _, o := range ours {
		fitting := has(o.settings.Language) && (!o.settings.Sized || cell.Time > 0)
		if len(c.Drover) == 0 && fitting || slices.Contains(c.Drover, o.name) {
			of := o.settings.Contender(o.name)
			if o.settings.Language == "python" && !o.settings.Sized {
				of.Warm = findsNumbers
			}
			out = append(out, of)
		}
	}
	for _, p := range installed {
		if fits(p, cell) {
			out = append(out, e.contender(p))
		}
	}
	return out
}

// fits reports whether a peer has functions of a cell's kind. Go's functions wait in one way alone.
func fits(p peer, cell load.Cell) bool {
	return slices.Contains(p.kinds, cell.Work)
}

// findPeers returns the peers that are installed, and prints their versions and settings, and how
// the others are installed.
func (c *Command) findPeers(ctx context.Context, dir string) (e *environment, installed []peer, err error) {
	e = &environment{venv: c.Venv, gopeers: filepath.Join(dir, "gopeers")}
	if c.Gopeers != "" {
		if e.gopeers, err = filepath.Abs(c.Gopeers); err != nil {
			return nil, nil, err
		}
	}
	if e.venv == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, nil, err
		}
		e.venv = filepath.Join(cache, "drover-bench", "venv")
	}
	if e.venv, err = filepath.Abs(e.venv); err != nil {
		return nil, nil, err
	}
	fmt.Println(load.Commit(ctx))
	fmt.Printf("%d cores, %s\n\n| peer | versions | settings |\n| --- | --- | --- |\n", runtime.NumCPU(), runtime.Version())
	var missing []string
	for _, p := range all {
		if len(c.Only) > 0 && !slices.ContainsFunc(c.Only, func(name string) bool { return strings.EqualFold(p.name, name) }) {
			continue
		}
		versions, install := e.find(ctx, p)
		if install != "" {
			missing = append(missing, fmt.Sprintf("%s is not installed: %s", p.name, install))
			continue
		}
		fmt.Printf("| %s | %s | %s |\n", p.name, versions, p.settings)
		installed = append(installed, p)
	}
	fmt.Println()
	for _, line := range missing {
		fmt.Println(line)
	}
	return e, installed, nil
}

// find returns the versions of a peer and of its broker, or how it is installed.
func (e *environment) find(ctx context.Context, p peer) (versions, install string) {
	broker, install := brokerVersion(ctx, p.broker)
	if install != "" {
		return "", install
	}
	if p.language == "go" {
		versions, install = e.goVersions(ctx, p)
	} else {
		versions, install = e.pythonVersions(ctx, p)
	}
	return versions + ", " + broker, install
}

// requirements is where the peers in Python are listed, from the root of the repository.
const requirements = "bench/peers/requirements.txt"

func (e *environment) pythonVersions(ctx context.Context, p peer) (versions, install string) {
	const script = "import importlib.metadata, platform, sys; print('CPython', platform.python_version(), *(', ' + n + ' ' + importlib.metadata.version(n) for n in sys.argv[1:]))"
	out, err := exec.CommandContext(ctx, filepath.Join(e.venv, "bin", "python"), append([]string{"-c", script}, p.packages...)...).Output()
	if err != nil {
		return "", fmt.Sprintf("python3 -m venv %s && %s/bin/pip install -r %s", e.venv, e.venv, requirements)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(out)), " ,", ","), ""
}

// goPeers is the module of the peers in Go, from the root of the repository.
const goPeers = "bench/peers/testdata/gopeers"

// goVersions builds the peers in Go, once.
func (e *environment) goVersions(ctx context.Context, p peer) (versions, install string) {
	if _, err := os.Stat(e.gopeers); err != nil {
		build := exec.CommandContext(ctx, "go", "-C", goPeers, "build", "-o", e.gopeers, ".")
		build.Env = append(os.Environ(), "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Sprintf("it must build, in the root of the repository: GOWORK=off go -C %s build . (%v: %s)", goPeers, err, strings.TrimSpace(string(out)))
		}
	}
	out, err := exec.CommandContext(ctx, e.gopeers, "versions").Output()
	if err != nil {
		return "", err.Error()
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(line, " "); slices.Contains(p.packages, name) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, ", "), ""
}

// brokerVersion returns the version of a broker, or how it is installed.
func brokerVersion(ctx context.Context, name string) (version, install string) {
	var program string
	var err error
	switch name {
	case "nats":
		return "nats-server " + load.ServerVersion, ""
	case "redis":
		program, err = exec.LookPath("redis-server")
		install = "its Redis is missing; on Debian: apt-get install redis-server"
	case "postgres":
		if program, err = postgresProgram("postgres"); err == nil {
			_, err = postgresProgram("initdb")
		}
		install = "its PostgreSQL is missing; on Debian: apt-get install postgresql"
	}
	if err != nil {
		return "", install
	}
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", install
	}
	text := strings.TrimSpace(string(out))
	if name == "redis" { // Redis server v=7.0.15 sha=...
		_, text, _ = strings.Cut(text, "v=")
		text, _, _ = strings.Cut(text, " ")
		return "Redis " + text, ""
	}
	text, _, _ = strings.Cut(text, " (Debian")
	return strings.NewReplacer("postgres (PostgreSQL)", "PostgreSQL").Replace(text), ""
}
