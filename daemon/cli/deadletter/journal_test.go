package deadletter

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	open := func() *journal {
		t.Helper()
		j, err := openJournal(dir, "a/b")
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if _, err := openJournal(dir, "a/b"); !errors.Is(err, errReplaying) {
		t.Errorf("a second one: %v", err)
	}
	now := time.Unix(1_700_000_000, 5)
	for _, id := range []string{"1", "2", "3"} {
		if tried, err := j.beginLetter(id, now, now); err != nil || !tried.IsZero() {
			t.Errorf("%v, %v", tried, err)
		}
	}
	if err := errors.Join(j.endLetter("2"), j.endLetter("unknown"), j.closeFile()); err != nil {
		t.Fatal(err)
	}
	// The process is killed in the middle of a line.
	path := filepath.Join(dir, "replays", "a%2Fb")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(file, "end 1"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	j = open()
	for id, want := range map[string]time.Time{"1": now, "2": {}, "3": now} {
		if tried, err := j.beginLetter(id, now.Add(-time.Hour), now.Add(time.Hour)); err != nil || !tried.Equal(want) {
			t.Errorf("%s was tried at %v, %v; want %v", id, tried, err, want)
		}
	}
	// The stream of dead letters was recreated: another letter has that ID, and was not tried.
	if tried, err := j.beginLetter("1", now.Add(time.Hour), now.Add(2*time.Hour)); err != nil || !tried.IsZero() {
		t.Errorf("a letter that died after that was tried at %v, %v", tried, err)
	}
	if err := errors.Join(j.endLetter("1"), j.endLetter("2"), j.endLetter("3"), j.closeFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is left, with nothing in it: %v", err)
	}
}
