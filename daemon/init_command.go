package daemon

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// projects are the files of new projects, by kind. A .tmpl is executed, which also
// keeps Go's from being built here; a gitignore is written as .gitignore.
//
//go:embed init
var projects embed.FS

// modulePath is what a program of a user's requires.
const modulePath = "github.com/drover-run/drover"

// initCommand is `drover init`.
type initCommand struct {
	Kind string `arg:"" optional:"" enum:"python,node,go,http,azure" default:"python" help:"Write a project of this kind: python; node; go, a program that contains drover; http, an app that drover calls; or azure, Python with Azure's queues (default: python)."`
	Dir  string `arg:"" optional:"" default:"." help:"Write into this directory, created if missing (default: the current one)."`
}

func (*initCommand) Help() string {
	return `The project has a commented configuration and function, a sample message, and a README. It runs as it is. If one of its files already exists, nothing is written.

Examples:

    drover init                      # python, here
    drover init go orders
    drover init azure ~/src/billing
`
}

// next are the commands that show a new project at work, by kind.
var next = map[string][]string{
	"python": {"drover invoke orders --file order.json", "drover run", "drover send orders --file order.json   # from a second terminal"},
	"node":   {"drover invoke orders --file order.json", "drover run", "drover send orders --file order.json   # from a second terminal"},
	"go":     {"go mod tidy && go build -o orders .", "./orders run", "./orders send orders --file order.json   # from a second terminal"},
	"http":   {"python3 app.py", "drover run                              # from a second terminal", "drover send orders --file order.json    # from a third"},
	"azure":  {"drover emulate storagequeue", "drover run                              # from a second terminal", "drover send orders --file order.json    # from a third"},
}

func (c *initCommand) Run(std *IO) error {
	files, err := projectFiles(c.Kind)
	if err != nil {
		return err
	}
	if err := writeProject(c.Dir, files); err != nil {
		return err
	}
	where := "here"
	if c.Dir != "." {
		where = "into " + c.Dir
	}
	fmt.Fprintf(std.Out, "Written %s:\n", where)
	for _, f := range files {
		fmt.Fprintln(std.Out, "  "+f.name)
	}
	fmt.Fprintln(std.Out, "\nNext:")
	if c.Dir != "." {
		fmt.Fprintln(std.Out, "  cd "+shellQuoted(c.Dir))
	}
	if of := thisModule(); c.Kind == "go" && of.Devel && of.Source == "" {
		fmt.Fprintln(std.Out, "  # set the location of drover's source in go.mod: this build has no version")
	}
	for _, line := range next[c.Kind] {
		fmt.Fprintln(std.Out, "  "+line)
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./~-]+$`)

// shellQuoted is a word as a shell takes it.
func shellQuoted(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// projectFile is one file of a new project.
type projectFile struct {
	name string // with slashes
	text []byte
}

// projectFiles are the files of a kind, in order.
func projectFiles(kind string) (files []projectFile, err error) {
	of := thisModule()
	root := path.Join("init", kind)
	err = fs.WalkDir(projects, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if err == nil && entry.Name() == "__pycache__" { // of tests that were run in place
				return fs.SkipDir
			}
			return err
		}
		text, err := projects.ReadFile(name)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, root+"/")
		if plain, found := strings.CutSuffix(name, ".tmpl"); found {
			var out bytes.Buffer
			t, err := template.New(name).Parse(string(text))
			if err == nil {
				err = t.Execute(&out, of)
			}
			if err != nil {
				return err
			}
			name, text = plain, out.Bytes()
		}
		if name == "gitignore" {
			name = ".gitignore"
		}
		files = append(files, projectFile{name, text})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the project %s: %w", kind, err)
	}
	return files, nil
}

// writeProject writes files into a directory, all or none where it can be told
// before.
func writeProject(dir string, files []projectFile) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a project is for others too
		return fmt.Errorf("making the project's directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the project's directory: %w", err)
	}
	defer func() { _ = root.Close() }() // its files are closed one by one
	var there []string
	for _, f := range files {
		if _, err := root.Lstat(filepath.FromSlash(f.name)); err == nil {
			there = append(there, f.name)
		}
	}
	if slices.Sort(there); len(there) > 0 {
		return fmt.Errorf("nothing was written: %s has %s already; name another directory, as in drover init KIND DIR", dir, strings.Join(there, ", "))
	}
	for _, f := range files {
		if err := writeNew(root, filepath.FromSlash(f.name), f.text); err != nil {
			return fmt.Errorf("writing the project: %w", err)
		}
	}
	return nil
}

// writeNew writes a file that was not there.
func writeNew(root *os.Root, name string, text []byte) (err error) {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.Write(text)
	return err
}

// moduleOf is how a program requires drover.
type moduleOf struct {
	Go      string // the language version that drover needs
	Version string
	// Devel is a drover that was built from a source tree, and has no version that
	// others can get; Source is that tree, where it is on this machine.
	Devel  bool
	Source string
}

var languageVersion = regexp.MustCompile(`go(1\.\d+)`)

// thisModule is how a program requires the drover that this one was built of.
func thisModule() moduleOf {
	out := moduleOf{Go: "1.26.0", Version: "v0.0.0", Devel: true}
	if m := languageVersion.FindStringSubmatch(runtime.Version()); m != nil {
		out.Go = m[1] + ".0"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if version, found := released(info); found {
			out.Version, out.Devel = version, false
			return out
		}
	}
	_, here, _, _ := runtime.Caller(0)
	tree := filepath.Dir(filepath.Dir(here))
	if text, err := os.ReadFile(filepath.Join(tree, "go.mod")); err == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n")) {
		if out.Source = tree; !plainWord.MatchString(tree) {
			out.Source = strconv.Quote(tree)
		}
	}
	return out
}

// released is the version of drover that a program was built of, if others can get
// it: not that of a tree, nor of one with changes.
func released(info *debug.BuildInfo) (version string, found bool) {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == modulePath && m.Replace == nil && strings.HasPrefix(m.Version, "v") && !slices.Contains(strings.Split(m.Version, "+"), "dirty") {
			return m.Version, true
		}
	}
	return "", false
}
