package reasons

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestReasons(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "dead")
	s := NewStore(dir)
	want := Reason{ID: "1", Message: "m", Function: "f", Error: "ValueError: no", Traceback: "line 1\nline 2", Attempts: 3, Enqueued: time.Unix(100, 0).UTC(), Rejected: time.Unix(200, 0).UTC()}
	var adding sync.WaitGroup
	for _, queue := range []string{"a-poison", "b-poison"} {
		for _, id := range []string{"1", "2", "3"} {
			adding.Go(func() {
				r := want
				r.ID = id
				if err := s.AddReason(queue, r); err != nil {
					t.Error(err)
				}
			})
		}
	}
	adding.Wait()
	if got := ReadAll([]string{t.TempDir(), dir}, "a-poison"); len(got) != 3 || got["1"] != want {
		t.Errorf("%+v", got)
	}
	if got := ReadAll([]string{dir}, "c-poison"); len(got) != 0 {
		t.Errorf("another queue has %+v", got)
	}
}

// A full file replaces the previous one, and lines that cannot be read are omitted.
func TestFullFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := NewStore(dir)
	add := func(id string) {
		t.Helper()
		if err := s.AddReason("q-poison", Reason{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	fill := func() {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "q-poison.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, strings.Repeat("no line\n", maxFile/8)...)
		if err := os.WriteFile(filepath.Join(dir, "q-poison.jsonl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add("1")
	fill()
	add("2")
	if got := ReadAll([]string{dir}, "q-poison"); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	fill()
	add("3")
	got := ReadAll([]string{dir}, "q-poison")
	if _, kept := got["1"]; len(got) != 2 || kept {
		t.Errorf("%+v", got)
	}
}

func TestADirectoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewStore(file).AddReason("q", Reason{ID: "1"}); err == nil || !strings.Contains(err.Error(), "keeping the reason of a dead letter") {
		t.Errorf("the error is %v", err)
	}
}
