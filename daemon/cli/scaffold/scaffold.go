// Package scaffold writes the small projects of drover init. The command calls it, from one
// goroutine.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
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
)

// projects has the files of new projects, by kind. In a .tmpl, {{NAME}} is
// replaced, and the suffix keeps Go files from being built here. A gitignore is written as .gitignore.
//
//go:embed projects
var projects embed.FS

// modulePath is the module that a user's program requires.
const modulePath = "github.com/drover-run/drover"

// nextCommands are the commands that show a new project at work, by kind.
var nextCommands = map[string][]string{
	"python": {"drover invoke orders --file order.json", "drover run", "drover send orders --file order.json   # from a second terminal"},
	"node":   {"drover invoke orders --file order.json", "drover run", "drover send orders --file order.json   # from a second terminal"},
	"go":     {"go mod tidy && go build -o orders .", "./orders run", "./orders send orders --file order.json   # from a second terminal"},
	"http":   {"python3 app.py", "drover run                              # from a second terminal", "drover send orders --file order.json    # from a third"},
	"azure": {
		"python3 -m venv .venv && .venv/bin/pip install -r requirements.txt", "drover emulate storagequeue", "drover run .                                 # from a second terminal",
		"drover send orders -c . --file order.json    # from a third",
	},
	"azure-queues": {"drover emulate storagequeue", "drover run                              # from a second terminal", "drover send orders --file order.json    # from a third"},
}

// schemaFile is the file of the schema, which the first line of a project's configuration names.
const schemaFile = "drover.schema.json"

// WriteProject writes a project of a kind into a directory, which it creates if it is missing, and
// prints the files and the next commands to out. schema is the JSON Schema of a configuration. If one of
// the files exists, it writes none.
func WriteProject(kind, dir string, schema []byte, out io.Writer) error {
	files, err := projectFiles(kind)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(files, func(f projectFile) bool { return bytes.Contains(f.text, []byte("$schema=./"+schemaFile)) }) {
		files = append(files, projectFile{schemaFile, append(slices.Clone(schema), '\n')})
	}
	if err := writeFiles(dir, files); err != nil {
		return err
	}
	where := "here"
	if dir != "." {
		where = "into " + dir
	}
	fmt.Fprintf(out, "Written %s:\n", where)
	for _, f := range files {
		fmt.Fprintln(out, "  "+f.name)
	}
	fmt.Fprintln(out, "\nNext:")
	if dir != "." {
		fmt.Fprintln(out, "  cd "+shellQuoted(dir))
	}
	if of := currentModule(); kind == "go" && of.Devel && of.Source == "" {
		fmt.Fprintln(out, "  go mod edit -replace "+modulePath+"=DIR   # DIR: your clone of drover; this version is not published")
	}
	for _, line := range nextCommands[kind] {
		fmt.Fprintln(out, "  "+line)
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./~-]+$`)

// shellQuoted returns a word as one word of a shell, in quotes if it needs them.
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

// projectFiles returns the files of a kind, in order.
func projectFiles(kind string) (files []projectFile, err error) {
	of := currentModule()
	values := strings.NewReplacer("{{GO}}", of.Go, "{{VERSION}}", of.Version, "{{REPLACE}}", of.replaceLines())
	root := path.Join("projects", kind)
	err = fs.WalkDir(projects, root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if err == nil && entry.Name() == "__pycache__" { // left by tests that run in place
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
			name, text = plain, []byte(values.Replace(string(text)))
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

// writeFiles writes files into a directory; none if one of them exists.
func writeFiles(dir string, files []projectFile) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // others may read a project
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
		if err := createFile(root, filepath.FromSlash(f.name), f.text); err != nil {
			return fmt.Errorf("writing the project: %w", err)
		}
	}
	return nil
}

// createFile writes a file that does not exist yet.
func createFile(root *os.Root, name string, text []byte) (err error) {
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

// moduleInfo describes how a program requires drover.
type moduleInfo struct {
	Go      string // the language version that drover needs
	Version string
	// Devel is true if drover was built from a source tree, and has no version that others can
	// download. Source is that tree, if it is on this machine.
	Devel  bool
	Source string
}

var languageVersion = regexp.MustCompile(`go(1\.\d+)`)

// replaceLines returns the lines of a go.mod that point to the source of a drover that is not published.
func (m moduleInfo) replaceLines() string {
	switch {
	case m.Source != "":
		return "\n// The drover that wrote this was built from this source, and is not published.\nreplace " + modulePath + " => " + m.Source + "\n"
	case m.Devel:
		return "\n// The drover that wrote this was built from source, and is not published. Set the location of your clone:\n// replace " + modulePath + " => ../drover\n"
	}
	return ""
}

// currentModule describes the drover that this program was built from.
func currentModule() moduleInfo {
	out := moduleInfo{Go: "1.26.0", Version: "v0.0.0", Devel: true}
	if m := languageVersion.FindStringSubmatch(runtime.Version()); m != nil {
		out.Go = m[1] + ".0"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if version, found := releasedVersion(info); found {
			out.Version, out.Devel = version, false
			return out
		}
	}
	_, here, _, _ := runtime.Caller(0)                                              // with -trimpath, no path of this machine
	trees := []string{filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(here))))} // of daemon/cli/scaffold
	if program, err := os.Executable(); err == nil {
		trees = append(trees, filepath.Dir(filepath.Dir(program))) // make build writes bin/drover
	}
	for _, tree := range trees {
		if text, err := os.ReadFile(filepath.Join(tree, "go.mod")); err == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n")) {
			if out.Source = tree; !plainWord.MatchString(tree) {
				out.Source = strconv.Quote(tree)
			}
			break
		}
	}
	return out
}

// unpublished matches the version of a commit without a tag. Such a commit may be on this machine alone.
var unpublished = regexp.MustCompile(`[-.][0-9]{14}-[0-9a-f]{12}$`)

// releasedVersion returns the version of drover that a program was built from, if others can
// download it: it was itself downloaded, and so has a checksum, or it has a tag. A build from a source
// tree without a tag, or with local changes, has none.
func releasedVersion(info *debug.BuildInfo) (version string, found bool) {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == modulePath && m.Replace == nil && strings.HasPrefix(m.Version, "v") && !slices.Contains(strings.Split(m.Version, "+"), "dirty") &&
			(m.Sum != "" || !unpublished.MatchString(m.Version)) {
			return m.Version, true
		}
	}
	return "", false
}
