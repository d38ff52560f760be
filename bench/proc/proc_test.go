package proc

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// startChild starts a process that has a child of its own.
func startChild(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 60 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has its child
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tree, err := Tree(cmd.Process.Pid)
		if err != nil {
			t.Error(err)
		}
		for _, pid := range tree {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestTree(t *testing.T) {
	child := startChild(t)
	tree, err := Tree(child)
	if err != nil || len(tree) != 2 || tree[0] != child {
		t.Errorf("the tree of %d: %v, %v; want it and its child", child, tree, err)
	}
	whole, err := Tree(os.Getpid())
	if err != nil || !slices.Contains(whole, tree[1]) {
		t.Errorf("the own tree %v lacks the grandchild %d: %v", whole, tree[1], err)
	}
}

func TestUsageGrows(t *testing.T) {
	own := []int{os.Getpid()}
	before, err := Sum(own)
	if err != nil {
		t.Fatal(err)
	}
	for {
		used, err := Sum(own)
		if err != nil {
			t.Fatal(err)
		}
		if now := used.Sub(before); now.CPU >= 20*time.Millisecond {
			break // it takes CPU time to get here
		}
	}
	if memory, err := Memory(own); err != nil || memory < 1<<20 {
		t.Errorf("memory %d, %v", memory, err)
	}
}

func TestProcessThatIsGone(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone := []int{cmd.Process.Pid}
	if used, err := Sum(gone); err != nil || used != (Usage{}) {
		t.Errorf("%v, %v", used, err)
	}
	if memory, err := Memory(gone); err != nil || memory != 0 {
		t.Errorf("%d, %v", memory, err)
	}
	if _, _, err := Stat(gone[0]); err == nil {
		t.Error("no error from Stat")
	}
}

func TestNoSyscallCounter(t *testing.T) {
	if _, err := (SyscallCounter{}).Count(t.Context(), []int{os.Getpid()}, time.Millisecond); err == nil {
		t.Error("no error without a tool")
	}
	t.Setenv("PATH", t.TempDir())
	if c := FindSyscallCounter(t.Context()); c.Tool != "" {
		t.Errorf("%s was found on an empty path", c.Tool)
	}
}
