// Package reasons keeps why messages were moved to poison queues, in files of a data directory. A
// poison queue in Azure's format has the bodies of the messages alone.
//
// Each poison queue has a file with a line for each message. A full file replaces the one before: at
// most two exist.
package reasons

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Reason is why a message was rejected.
type Reason struct {
	ID        string    `json:"id"`      // in the poison queue
	Message   string    `json:"message"` // the ID in the queue before
	Function  string    `json:"function,omitempty"`
	Error     string    `json:"error"`
	Traceback string    `json:"traceback,omitempty"`
	Attempts  int       `json:"attempts"`
	Enqueued  time.Time `json:"enqueued"`
	Rejected  time.Time `json:"rejected"`
}

const (
	// maxFile is the size from which on a file is full, in bytes.
	maxFile = 4 << 20
	// maxLine bounds a line that is read, in bytes.
	maxLine = 1 << 20

	ending     = ".jsonl"
	fullEnding = ".1.jsonl"
)

// Store adds reasons to the files in a directory. It is safe for use by many goroutines of one
// process. Processes must not share a directory.
type Store struct {
	dir string
	mu  sync.Mutex
}

// NewStore returns the store in a directory, which the first reason creates.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// AddReason adds the reason for a message in a poison queue. The file is not synced to disk.
func (s *Store) AddReason(queue string, r Reason) (err error) {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keeping the reason of a dead letter: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keeping the reason of a dead letter: %w", err)
	}
	path := filepath.Join(s.dir, queue)
	if info, err := os.Stat(path + ending); err == nil && info.Size() >= maxFile {
		if err := os.Rename(path+ending, path+fullEnding); err != nil {
			return fmt.Errorf("keeping the reason of a dead letter: %w", err)
		}
	}
	file, err := os.OpenFile(path+ending, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keeping the reason of a dead letter: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.Write(append(line, '\n'))
	return err
}

// ReadAll returns the reasons for the messages in a poison queue that stores in some directories
// have, by their IDs. It omits what cannot be read: an operator sees the messages without them.
func ReadAll(dirs []string, queue string) map[string]Reason {
	out := make(map[string]Reason)
	for _, dir := range dirs {
		for _, end := range []string{fullEnding, ending} {
			readFile(filepath.Join(dir, queue+end), out)
		}
	}
	return out
}

func readFile(path string, out map[string]Reason) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Reason
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.ID != "" {
			out[r.ID] = r
		}
	}
}
