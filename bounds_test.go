package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// lower makes TestBounds write lower ceilings.
var lower = flag.Bool("lower", false, "write ceilings that the code is below by now to testdata/ceilings.json")

const (
	modulePath   = "github.com/drover-run/drover"
	ceilingsFile = "testdata/ceilings.json"
)

// bounds are the limits of a package, and sizes its sizes, by the names below.
type sizes map[string]int

var bounds = sizes{
	"files":            15,
	"lines":            2500,
	"methods":          25,  // of the type that has the most
	"fields":           20,  // likewise
	"function lines":   100, // of the longest function
	"shared one-words": 0,   // names of one word that methods of several types have
	// mutual pairs of files, each of which uses what the other declares: a third of the files
}

// wholeBounds apply to all packages of the product together.
var wholeBounds = sizes{
	"one-word names, percent": 40, // of functions and methods
	"files naming a source":   3,  // for each source, outside its own package
}

// TestBounds limits the size of packages, types and functions, and the dependencies between files.
// A figure above its bound has a ceiling in testdata/ceilings.json. A change may only lower it: go
// test -run TestBounds . -lower
func TestBounds(t *testing.T) {
	text, err := os.ReadFile(ceilingsFile)
	if err != nil {
		t.Fatal(err)
	}
	var ceilings map[string]sizes
	if err := json.Unmarshal(text, &ceilings); err != nil {
		t.Fatalf("%s: %v", ceilingsFile, err)
	}
	measured := measureAll(t)
	next := make(map[string]sizes)
	for _, name := range slices.Sorted(maps.Keys(measured)) {
		for _, what := range slices.Sorted(maps.Keys(measured[name])) {
			n, bound := measured[name][what], boundOf(name, what, measured[name])
			if n <= bound {
				continue
			}
			ceiling, known := ceilings[name][what]
			if !known {
				ceiling = bound
			}
			if n > ceiling {
				t.Errorf("%s: %s: %d; at most %d is allowed", name, what, n, ceiling)
				n = ceiling
			}
			if next[name] == nil {
				next[name] = make(sizes)
			}
			next[name][what] = n
		}
	}
	if !*lower {
		return
	}
	out, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ceilingsFile, append(out, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

func boundOf(name, what string, of sizes) int {
	switch {
	case what == "mutual pairs":
		return of["files"] / 3
	case name == "all":
		return wholeBounds[what]
	}
	return bounds[what]
}

// measureAll measures each package of the product, and all of them together.
func measureAll(t *testing.T) map[string]sizes {
	t.Helper()
	out := make(map[string]sizes)
	var names []string
	sources := 0
	for _, m := range loadAll(t) {
		name := cmpOr(strings.TrimPrefix(strings.TrimPrefix(m.pkg.Path(), modulePath), "/"), ".")
		if strings.HasSuffix(name, "test") {
			continue // not part of the product
		}
		m.measure()
		out[name] = m.sizes
		names = append(names, m.names...)
		sources += m.namesSources(name)
	}
	oneWord := 0
	for _, name := range names {
		if words(name) == 1 {
			oneWord++
		}
	}
	out["all"] = sizes{"one-word names, percent": 100 * oneWord / len(names), "files naming a source": sources}
	return out
}

// loadAll parses and checks each package of this module. Imported packages come from the export
// data of the go command.
func loadAll(t *testing.T) (out []*measure) {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-export", "-json=Dir,ImportPath,Export,GoFiles,DepOnly", "./...")
	list.Stderr = os.Stderr
	text, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	fset, exports := token.NewFileSet(), make(map[string]string)
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var p struct {
			Dir, ImportPath, Export string
			GoFiles                 []string
			DepOnly                 bool
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		// Packages come after all that they import.
		if exports[p.ImportPath] = p.Export; p.DepOnly || len(p.GoFiles) == 0 {
			continue
		}
		m := &measure{fset: fset, info: &types.Info{Uses: make(map[*ast.Ident]types.Object)}, sizes: make(sizes)}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			m.files = append(m.files, file)
		}
		if m.pkg, err = (&types.Config{Importer: imports}).Check(p.ImportPath, fset, m.files, m.info); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// measure measures one package.
type measure struct {
	fset  *token.FileSet
	files []*ast.File
	pkg   *types.Package
	info  *types.Info
	sizes sizes
	names []string // of functions and methods
}

func (m *measure) measure() {
	methods := make(map[string]int)          // by type
	on := make(map[string]map[string]bool)   // by method name: the types that have it
	uses := make(map[string]map[string]bool) // which files a file uses
	for _, file := range m.files {
		at := m.fset.File(file.Pos())
		m.sizes["files"]++
		m.sizes["lines"] += at.LineCount()
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				m.function(n, methods, on)
			case *ast.StructType:
				m.most("fields", n.Fields.NumFields())
			case *ast.Ident:
				if used := m.declaredIn(n); used != "" && used != at.Name() {
					if uses[at.Name()] == nil {
						uses[at.Name()] = make(map[string]bool)
					}
					uses[at.Name()][used] = true
				}
			}
			return true
		})
	}
	for _, n := range methods {
		m.most("methods", n)
	}
	for name, types := range on {
		if len(types) > 1 && words(name) == 1 && !standard[name] {
			m.sizes["shared one-words"]++
		}
	}
	for from, to := range uses {
		for used := range to {
			if from < used && uses[used][from] {
				m.sizes["mutual pairs"]++
			}
		}
	}
}

func (m *measure) most(what string, n int) { m.sizes[what] = max(m.sizes[what], n) }

func (m *measure) function(f *ast.FuncDecl, methods map[string]int, on map[string]map[string]bool) {
	m.names = append(m.names, f.Name.Name)
	m.most("function lines", m.fset.Position(f.End()).Line-m.fset.Position(f.Pos()).Line+1)
	if f.Recv == nil {
		return
	}
	receiver := types.ExprString(f.Recv.List[0].Type)
	receiver = strings.TrimLeft(receiver, "*")
	methods[receiver]++
	if on[f.Name.Name] == nil {
		on[f.Name.Name] = make(map[string]bool)
	}
	on[f.Name.Name][receiver] = true
}

// declaredIn is the file of this package that declares what a name refers to: a type,
// function, method, field, variable or constant of the package. It is empty for anything else.
func (m *measure) declaredIn(name *ast.Ident) string {
	used := m.info.Uses[name]
	if used == nil || used.Pkg() != m.pkg || used.Pos() == token.NoPos {
		return ""
	}
	field, _ := used.(*types.Var)
	method, _ := used.(*types.Func)
	switch {
	case used.Parent() == m.pkg.Scope(), field != nil && field.IsField(), method != nil && method.Signature().Recv() != nil:
		return m.fset.File(used.Pos()).Name()
	}
	return "" // it is local
}

// standard are one-word names that Go's own interfaces, and drover's, give to methods.
var standard = map[string]bool{
	"Run": true, "Close": true, "String": true, "Error": true, "Unwrap": true, "Is": true, "As": true, "Read": true, "Write": true, "Flush": true, "Len": true,
	"Less": true, "Swap": true, "Push": true, "Pop": true, "Handle": true, "Start": true, "Receive": true, "Settle": true, "Drain": true, "Send": true,
	"Validate": true, "Help": true, "Done": true, "Err": true, "Value": true, "Deadline": true, "Describe": true, "Collect": true, "Enabled": true,
}

// words counts the words of a name in camel case: 1 for run and for ID, 2 for runOne.
func words(name string) int {
	n, before := 0, 'x'
	for i, r := range name {
		if i == 0 || unicode.IsUpper(r) && !unicode.IsUpper(before) {
			n++
		}
		before = r
	}
	return n
}

// sourceFiles are the names of the files, in configs and in the daemon, that belong to one source.
var sourceFiles = map[string]string{"natsjs": "nats.go", "servicebus": "servicebus.go", "storagequeue": "storagequeue.go"}

// sourceNames are the packages and the names of each source.
var sourceNames = map[string]*regexp.Regexp{
	"natsjs":       regexp.MustCompile(`NATS|[nN]ats|[jJ]et[sS]tream`),
	"servicebus":   regexp.MustCompile(`(?i)servicebus`),
	"storagequeue": regexp.MustCompile(`(?i)storagequeue`),
}

// namesSources counts the files of a package that name a source in code, for each source
// separately.
func (m *measure) namesSources(name string) (n int) {
	for source, pattern := range sourceNames {
		if name == "triggers/"+source || strings.HasPrefix(name, "triggers/"+source+"/") {
			continue
		}
		for _, file := range m.files {
			if filepath.Base(m.fset.File(file.Pos()).Name()) == sourceFiles[source] {
				continue // configs/SOURCE.go and the daemon's
			}
			found := false
			ast.Inspect(file, func(node ast.Node) bool {
				if id, is := node.(*ast.Ident); is && pattern.MatchString(id.Name) {
					found = true
				}
				return !found
			})
			if found {
				n++
			}
		}
	}
	return n
}

// The measurement itself is checked with a made-up package.
func TestWords(t *testing.T) {
	for name, want := range map[string]int{"run": 1, "Run": 1, "ID": 1, "runOne": 2, "readJSONFile": 2, "isA": 2} {
		if got := words(name); got != want {
			t.Errorf("%s: %d words, want %d", name, got, want)
		}
	}
	if fmt.Sprint(boundOf("daemon", "mutual pairs", sizes{"files": 10})) != "3" {
		t.Error("mutual pairs are not bounded by a third of the files")
	}
}
