package main

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// This file checks the checklists of docs/architecture.md with the existing sources, provisioners
// and handlers, and with a made-up one of each kind, for which each missing item must be found.

// item is one line of a checklist: a file that matches pattern must have the text.
type item struct {
	pattern string
	text    string
}

// missing returns the items that a tree of files lacks.
func missing(t *testing.T, tree fs.FS, items []item) (lacks []item) {
	t.Helper()
	for _, i := range items {
		names, err := fs.Glob(tree, i.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(names, func(name string) bool {
			text, err := fs.ReadFile(tree, name)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(text), i.text)
		}) {
			lacks = append(lacks, i)
		}
	}
	return lacks
}

// source is a trigger with its names in configurations and in the code.
type source struct {
	folder string // below triggers
	file   string // in configs and daemon/internal/sources
	key    string // in a configuration
	page   string // in docs
	// noMessages is set for a source that keeps no messages: nothing can be sent to it, peeked or
	// dead-lettered.
	noMessages bool
}

func (s source) items() []item {
	folder := path.Join("triggers", s.folder)
	items := []item{
		{"configs/" + s.file + ".go", "package configs"},
		{"configs/configs.go", `yaml:"` + s.key + `"`},
		{"configs/example.yaml", s.key + ":"},
		{"daemon/internal/sources/" + s.file + ".go", "package sources"},
		{"docs/" + s.page, "# "},
		{"README.md", "docs/" + s.page},
	}
	if !s.noMessages {
		for _, suite := range []string{"Run", "RunDeadLetters", "RunPeek", "RunFind"} {
			items = append(items, item{folder + "/*_test.go", "triggertest." + suite + "("})
		}
	}
	return items
}

var sources = []source{
	{"natsjs", "nats", "nats", "nats.md", false},
	{"servicebus", "servicebus", "servicebus", "azure-service-bus.md", false},
	{"storagequeue", "storagequeue", "storage_queue", "azure-storage-queue.md", false},
	{"timer", "timer", "timer", "timers.md", true},
	{"httptrigger", "http", "http", "http-trigger.md", true},
}

// notSources are the packages below triggers that are not sources in a configuration.
var notSources = []string{"lease", "memory", "sdktest", "triggertest"}

func provisionerItems(name string) []item {
	folder := path.Join("scaler", name)
	return []item{
		{folder + "/*_test.go", "provisionertest.Run("},
		{folder + "/*.go", ") Count("},
		{folder + "/*.go", ") Set("},
		{"daemon/supervisor.go", `drover/scaler/` + name + `"`},
	}
}

// notProvisioners are the packages below scaler that start no units.
var notProvisioners = []string{"autotune", "hostinfo", "provisionertest", "sim"}

// handlerKey finds the keys of the struct Handler in configs.
var handlerKey = regexp.MustCompile("(?m)^\t[A-Z]\\w+ +\\S+ +`yaml:\"(\\w+)\" desc:")

func handlerItems(key string) []item {
	return []item{
		{"configs/*.yaml", key + ":"},
		{"docs/*.md", key},
		{"README.md", key},
	}
}

func TestChecklists(t *testing.T) {
	tree := os.DirFS(".")
	all := make(map[string][]item)
	for _, s := range sources {
		all["source "+s.folder] = s.items()
	}
	for _, name := range foldersIn(t, "triggers") {
		if !slices.Contains(notSources, name) && all["source "+name] == nil {
			t.Errorf("triggers/%s is not a known source: add it to sources or notSources", name)
		}
	}
	for _, name := range foldersIn(t, "scaler") {
		if !slices.Contains(notProvisioners, name) {
			all["provisioner "+name] = provisionerItems(name)
		}
	}
	_, handlers, _ := strings.Cut(readFile(t, "configs/handlers.go"), "\ntype Handler struct {")
	handlers, _, _ = strings.Cut(handlers, "\n}")
	for _, m := range handlerKey.FindAllStringSubmatch(handlers, -1) {
		all["handler "+m[1]] = handlerItems(m[1])
	}
	if len(all) < 10 {
		t.Errorf("only %d checklists: are the patterns still right?", len(all))
	}
	for _, what := range slices.Sorted(maps.Keys(all)) {
		for _, i := range missing(t, tree, all[what]) {
			t.Errorf("%s: no file %s has %q; see the checklists in docs/architecture.md", what, i.pattern, i.text)
		}
	}
}

// TestChecklistsOfAFake makes up the files of a new source, provisioner and handler, and omits one
// item after the other.
func TestChecklistsOfAFake(t *testing.T) {
	for what, items := range map[string][]item{
		"source":      source{"fake", "fake", "fake", "fake.md", false}.items(),
		"provisioner": provisionerItems("fake"),
		"handler":     handlerItems("fake"),
	} {
		for out := -1; out < len(items); out++ {
			tree := make(fstest.MapFS)
			for n, i := range items {
				name := strings.ReplaceAll(i.pattern, "*", "x")
				if tree[name] == nil {
					tree[name] = &fstest.MapFile{}
				}
				if n != out {
					tree[name].Data = append(tree[name].Data, i.text+"\n"...)
				}
			}
			lacks := missing(t, tree, items)
			if out < 0 && len(lacks) > 0 || out >= 0 && !slices.Contains(lacks, items[out]) {
				t.Errorf("%s, without item %d: missing are %v", what, out, lacks)
			}
		}
	}
}

func foldersIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}
