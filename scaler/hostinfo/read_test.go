package hostinfo

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 31, 32, 33, 3 * bufferSize} {
		want := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readSmall(path, make([]byte, 5, 32)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("of %d bytes %d were read: %v", size, len(got), err)
		}
	}
	if _, err := readSmall(path+".no", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no file: %v", err)
	}
	if _, err := readSmall(filepath.Dir(path), nil); err == nil {
		t.Error("a directory was read")
	}
}
