package node

import (
	"os"
	"testing"
)

func TestLayout(t *testing.T) {
	t.Parallel()
	i, err := FindInterpreter(t.Context(), "", os.LookupEnv)
	if err != nil {
		t.Skip(err)
	}
	l, err := ReadLayout(t.Context(), i)
	if err != nil || len(l.Homes) != 1 || l.Executable == "" {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, path := range []string{l.Executable, l.Homes[0]} {
		if _, err := os.Stat(path); err != nil || path == "/" {
			t.Errorf("%s: %v", path, err)
		}
	}
}
