package childproc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTasksOfAUser(t *testing.T) {
	proc := t.TempDir()
	for pid, status := range map[string]string{
		"1": "Name:\tinit\nUid:\t0\t0\t0\t0\nThreads:\t1\n", "20": "Name:\ta\nUid:\t7\t0\t0\t0\nThreads:\t5\n",
		"21": "Name:\tb\nUid:\t7\t7\t7\t7\nThreads:\t12\n", "self": "Uid:\t7\nThreads:\t100\n", "22": "",
	} {
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "status"), []byte(status), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := tasksOf(proc, 7); n != 17 {
		t.Errorf("%d tasks", n)
	}
	if n := tasksOf("/proc", os.Getuid()); n < 2 {
		t.Errorf("%d tasks of this very user", n)
	}
}

func TestPidsGroups(t *testing.T) {
	for groups, want := range map[string][]string{
		"0::/\n":                               {"/m"},
		"0::/a/b\n":                            {"/m/a/b", "/m/a", "/m"},
		"4:memory:/x\n3:pids:/d\n1:name=s:/\n": {"/m/pids/d", "/m/pids"},
		"":                                     nil,
	} {
		if got := pidsGroups("/m", groups); !slices.Equal(got, want) {
			t.Error(fmt.Sprintf("%q: ", groups), got)
		}
	}
}
