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
	"text/template"
)

// projects has the files of new projects, by kind. A .tmpl is executed, which also keeps Go's
// from being built here; a gitignore is written as .gitignore.
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
	"azure":  {"drover emulate storagequeue", "drover run                              # from a second terminal", "drover send orders --file order.json    # from a third"},
}

// WriteProject writes a project of a kind into a directory, which it creates if it is missing, and
// prints the files and the next commands to out. If one of the files exists, it writes none.
func WriteProject(kind, dir string, out io.Writer) error {
	files, err := projectFiles(kind)
	if err != nil {
		return err
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
		fmt.Fprintln(out, "  # set the location of drover's source in go.mod: this build has no version")
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
	// Devel is true if drover was built from a source tree, and so has no version that others can
	// download. Source is that tree, if it is on this machine.
	Devel  bool
	Source string
}

var languageVersion = regexp.MustCompile(`go(1\.\d+)`)

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
	_, here, _, _ := runtime.Caller(0)
	tree := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(here)))) // of daemon/cli/scaffold
	if text, err := os.ReadFile(filepath.Join(tree, "go.mod")); err == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n")) {
		if out.Source = tree; !plainWord.MatchString(tree) {
			out.Source = strconv.Quote(tree)
		}
	}
	return out
}

// releasedVersion returns the version of drover that a program was built from, if others can
// download it. A build from a source tree, or with local changes, has none.
func releasedVersion(info *debug.BuildInfo) (version string, found bool) {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == modulePath && m.Replace == nil && strings.HasPrefix(m.Version, "v") && !slices.Contains(strings.Split(m.Version, "+"), "dirty") {
			return m.Version, true
		}
	}
	return "", false
}
