package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/handlers/sandbox/launch"
)

// Files of workers that were forked from a template outlive the template.
func TestTemporaryDirectoriesOfForkedWorkers(t *testing.T) {
	needsLandlock(t, launch.FilesABI)
	c := strict(t, func(s *Settings) { s.Temporary = 1 << 30 })
	template, err := c.NewBox()
	if err != nil {
		t.Fatal(err)
	}
	forked := []*Box{c.ForkBox(template), c.ForkBox(template)}
	write(t, filepath.Join(template.tmp, "file"), strings.Repeat("x", 100<<10))
	for _, b := range forked {
		if err := os.Mkdir(b.TemporaryDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(b.TemporaryDir(), "file"), strings.Repeat("x", 1<<20))
		if err := os.Link(filepath.Join(b.TemporaryDir(), "file"), filepath.Join(b.TemporaryDir(), "another name")); err != nil {
			t.Fatal(err)
		}
	}
	for b, want := range map[*Box]int64{template: 100 << 10, forked[0]: 1 << 20, forked[1]: 1 << 20} {
		if got, err := b.MeasureDisk(); err != nil || got < want || got > want+want/2 {
			t.Errorf("it holds %d, wanted about %d; %v", got, want, err)
		}
	}
	there := func(path string) bool {
		_, err := os.Stat(path)
		return !errors.Is(err, os.ErrNotExist)
	}
	for i, b := range []*Box{template, forked[0], forked[1]} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		left := []bool{there(template.tmp), there(filepath.Join(template.tmp, "file")), there(forked[0].tmp), there(forked[1].tmp)}
		if want := [][]bool{{true, false, true, true}, {true, false, false, true}, {false, false, false, false}}[i]; !slices.Equal(left, want) {
			t.Errorf("after %d ended, there are %v, wanted %v", i+1, left, want)
		}
	}
	if len(c.temporary) > 0 {
		t.Errorf("of workers that have ended are left %v", c.temporary)
	}
}
