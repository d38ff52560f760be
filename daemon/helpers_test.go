package daemon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 4 * time.Minute

// printed is the output of a command. Tests can wait for parts of it.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newPrinted() *printed { return &printed{more: make(chan struct{}, 1)} }

func (o *printed) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *printed) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// write creates a directory with files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const pythonConfig = `
log: {level: debug}
drain: 20s
functions:
  greet:
    trigger: {nats: {ack_wait: 10s}}
    handler: {python: {path: ./app, processes: 1}}
    retry: {max_attempts: 2, initial: 10ms}
`

// binary builds the command once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "drover-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "drover")
	if out, err := exec.Command("go", "build", "-o", path, "..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})
