package process

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Cached files do not count as a process's own memory.
func TestAnonymousMemory(t *testing.T) {
	if _, err := procfs.Self(); err != nil {
		t.Skip("it is read from /proc, which this system has not")
	}
	const size = 64 << 20
	file, err := os.Create(filepath.Join(t.TempDir(), "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	before := AnonymousMemory(os.Getpid())
	if before == 0 {
		t.Fatal("this process has no anonymous memory")
	}
	for _, test := range []struct {
		name  string
		flags int
		fd    int
		own   bool
	}{
		{"of a file", unix.MAP_SHARED, int(file.Fd()), false},
		{"of its own", unix.MAP_PRIVATE | unix.MAP_ANON, -1, true},
	} {
		pages, err := unix.Mmap(test.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, test.flags)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < size; at += 4096 {
			pages[at] = 1
		}
		if grew := int64(AnonymousMemory(os.Getpid())) - int64(before); (grew > size/2) != test.own {
			t.Errorf("%d bytes %s are %d bytes of anonymous memory", size, test.name, grew)
		}
		if err := unix.Munmap(pages); err != nil {
			t.Error(err)
		}
	}
}
