package interpreters

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Layout has the paths of an interpreter's files.
type Layout struct {
	// Executable is the program itself, even if the command is a script that finds it, as
	// with pyenv.
	Executable string
	// Homes are the files and directories that it consists of; Libraries are the
	// directories that it imports from, as this process's user sees them.
	Homes, Libraries []string
}

// ReadLayout runs an interpreter to find its parts: with these arguments it prints
// them, as JSON, in its last line. Earlier lines come from its own set-up, and are ignored.
func (i Interpreter) ReadLayout(ctx context.Context, args ...string) (l Layout, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	out, err := commandOutput(ctx, i.Path, args...)
	said := strings.TrimSpace(string(out))
	if err != nil {
		return l, fmt.Errorf("the interpreter %s (%s) does not run: %w: %s", i.Path, i.From, err, said)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &l); err != nil {
		return l, fmt.Errorf("the interpreter %s (%s) does not say where it is: %w: %s", i.Path, i.From, err, said)
	}
	l.Executable = cmp.Or(l.Executable, i.Path)
	slices.Sort(l.Homes)
	l.Homes = slices.DeleteFunc(slices.Compact(l.Homes), func(home string) bool {
		_, err := os.Stat(home)
		return err != nil || home == "/" // that is not its own
	})
	return l, nil
}
