package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/problems"
)

// CheckPaths reports, with their lines, missing directories and files of python, node, worker and
// exec handlers. Load does not, because commands that only talk to a daemon do not need them.
func (c *Config) CheckPaths() error {
	s := c.Places()
	checked := make(map[string]bool)
	for _, name := range sortedNames(c.Functions) {
		h := c.Functions[name].Handler
		path := "functions." + name + ".handler."
		if h.Exec != nil {
			needDirectory(s, path+"exec.dir", h.Exec.Dir, "dir is the directory that the command runs in")
			if command := h.Exec.Command; len(command) > 0 && filepath.IsAbs(command[0]) {
				needFile(s, path+"exec.command", command[0], "command is a program in $PATH, or a path relative to dir")
			}
			continue
		}
		code := h.codeKeys()
		if code == nil || *code.app == "" || checked[*code.app] {
			continue
		}
		checked[*code.app] = true
		app, at := c.Apps[*code.app], "apps."+*code.app+".path"
		if !s.Given(at) {
			at = path + code.language + ".path"
		}
		const hint = "path is the directory of the code, or one file in it, relative to the configuration"
		if !needDirectory(s, at, app.Dir, hint) {
			continue
		}
		if file := filepath.Base(app.Path); slices.Contains(fileEndings[app.Language], filepath.Ext(file)) {
			needFile(s, at, filepath.Join(app.Dir, file), hint)
		}
		if command := app.Command; len(command) > 0 && filepath.IsAbs(command[0]) {
			needFile(s, strings.TrimSuffix(at, "path")+"command", command[0], "command is a program in $PATH, or a path relative to the app's")
		}
	}
	return s.Err()
}

// needDirectory reports a problem if a directory does not exist; it returns whether it exists.
func needDirectory(s *problems.Source, path, dir, hint string) bool {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return true
	case err == nil:
		s.Report(s.At(path), "%s is not a directory; %s", dir, hint)
	default:
		s.Report(s.At(path), "%s %s; %s", dir, statError(err), hint)
	}
	return false
}

func needFile(s *problems.Source, path, file, hint string) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		s.Report(s.At(path), "%s %s; %s", file, statError(err), hint)
	case info.IsDir():
		s.Report(s.At(path), "%s is a directory; %s", file, hint)
	}
}

func statError(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "does not exist"
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return "cannot be read: " + err.Error()
}
