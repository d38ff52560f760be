package release

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A release is built with patched copies of two libraries, which make it 7 MB smaller
// (docs/performance.md has the figures). A test checks that the programs behave the same.
var copies = []libraryCopy{
	{
		// kong calls methods by name. The linker cannot know the names, so it keeps every exported
		// method of the program. kong needs only six names, which the copy spells out:
		// https://github.com/alecthomas/kong/issues/547.
		module: "github.com/alecthomas/kong",
		changes: []change{
			{"callbacks.go", "\tmethod := value.MethodByName(name)\n", "\tmethod := methodByName(value, name)\n"},
			{"callbacks.go", "\t\t\tmethod = value.Addr().MethodByName(name)\n", "\t\t\tmethod = methodByName(value.Addr(), name)\n"},
			{"callbacks.go", "\t\treturn value.MethodByName(name)\n", "\t\treturn methodByName(value, name)\n"},
			{"callbacks.go", "\t\treturn value.Addr().MethodByName(name)\n", "\t\treturn methodByName(value.Addr(), name)\n"},
			{"callbacks.go", "\tmethod, ok := t.MethodByName(name)\n", "\tmethod, ok := typeMethodByName(t, name)\n"},
			// drover has no methods that provide arguments for Run.
			{"context.go", "for i := 0; i < p.NumMethod(); i++ {\n\t\t\t\t\tmethodt := t.Method(i)\n", "for i := 0; i < 0; i++ {\n\t\t\t\t\tvar methodt reflect.Method\n"},
			{"context.go", "\t\t\t\t\t\tmethod := p.Method(i)\n", "\t\t\t\t\t\tvar method reflect.Value\n"},
		},
		added: map[string]string{"methods.go": methodsByName()},
	},
	{
		// The schema of the configuration is written as JSON. Its maps can also be written as YAML, with a
		// second YAML library, which the copy leaves out.
		module: "github.com/pb33f/ordered-map/v2",
		left:   []string{"yaml.go"},
	},
}

// copiesDir is below the source tree, because the program's build information contains the path.
const copiesDir = "bin/release"

// libraryCopy is a copy of a library with changes.
type libraryCopy struct {
	module  string
	changes []change
	added   map[string]string // file names, and their texts
	left    []string          // files to leave out
}

// change is a change to a file, in which the text from must occur exactly once.
type change struct{ file, from, to string }

// dir returns the directory of the copy, relative to the source tree.
func (l *libraryCopy) dir() string { return copiesDir + "/" + strings.ReplaceAll(l.module, "/", "_") }

// kongMethods are the methods that kong calls by name: Run and its hooks.
var kongMethods = []string{"Run", "BeforeReset", "BeforeResolve", "BeforeApply", "AfterApply", "AfterRun"}

// prepareModule makes the copies and a go.mod that uses them, and returns its path.
func prepareModule(ctx context.Context, source string) (string, error) {
	modFile := filepath.Join(source, copiesDir, "go.mod")
	if err := os.RemoveAll(filepath.Dir(modFile)); err != nil {
		return "", fmt.Errorf("removing earlier copies of libraries: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return "", err
	}
	for _, library := range copies {
		list := exec.CommandContext(ctx, "go", "list", "-m", "-json", library.module)
		list.Dir, list.Env = source, append(os.Environ(), "GOWORK=off")
		about, err := list.Output()
		if err != nil {
			return "", fmt.Errorf("finding the source of %s: %w", library.module, err)
		}
		var found struct{ Dir, Version string }
		if err := json.Unmarshal(about, &found); err != nil || found.Dir == "" {
			return "", fmt.Errorf("the source of %s is missing; run go mod download", library.module)
		}
		if err := library.write(found.Dir, filepath.Join(source, library.dir())); err != nil {
			return "", fmt.Errorf("changing %s %s: %w", library.module, found.Version, err)
		}
		text = append(text, "\nreplace "+library.module+" => ./"+library.dir()+"\n"...)
	}
	if err := writeFile(modFile, text); err != nil {
		return "", err
	}
	return modFile, writeFile(filepath.Join(filepath.Dir(modFile), "go.sum"), sums)
}

// write copies the source of the library, without its tests, and applies the changes.
func (l *libraryCopy) write(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // it is public
		return err
	}
	missing := len(l.changes) + len(l.left)
	for _, e := range entries {
		name := e.Name()
		if slices.Contains(l.left, name) {
			missing--
			continue
		}
		if name != "go.mod" && (!strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go")) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		text := string(content)
		for _, c := range l.changes {
			if c.file != name {
				continue
			}
			if n := strings.Count(text, c.from); n != 1 {
				return fmt.Errorf("%s has %q %d times, not once; compare internal/release/libraries.go with this version", name, c.from, n)
			}
			text = strings.Replace(text, c.from, c.to, 1)
			missing--
		}
		if err := writeFile(filepath.Join(to, name), []byte(text)); err != nil {
			return err
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d changes are for files that it does not have; compare internal/release/libraries.go with this version", missing)
	}
	for name, text := range l.added {
		if err := writeFile(filepath.Join(to, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// methodsByName returns the source of functions that find a method of kongMethods by its name.
func methodsByName() string {
	var out strings.Builder
	out.WriteString("package kong\n\nimport \"reflect\"\n")
	for _, f := range []struct{ signature, receiver string }{
		{"methodByName(v reflect.Value, name string) reflect.Value", "v"},
		{"typeMethodByName(t reflect.Type, name string) (reflect.Method, bool)", "t"},
	} {
		fmt.Fprintf(&out, "\nfunc %s {\n\tswitch name {\n", f.signature)
		for _, name := range kongMethods {
			fmt.Fprintf(&out, "\tcase %q:\n\t\treturn %s.MethodByName(%q)\n", name, f.receiver, name)
		}
		out.WriteString("\t}\n\tpanic(\"kong: the method \" + name + \" is missing in drover's internal/release/libraries.go\")\n}\n")
	}
	return out.String()
}
