package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// journal notes which dead letters a replay has in hand, in a file: to send one
// back and to remove it are two steps, and a process may be killed between them.
// The next run then knows which to be careful about. What is noted outlives the
// process, not a power cut.
//
// A line is "begin ID TIME" or "end ID". A begin is written before anything is
// sent, so that one that is cut off says nothing.
type journal struct {
	path string
	lock *flock.Flock

	mu    sync.Mutex
	file  *os.File
	tried map[string]time.Time // begun, and not ended
}

const journalMode = 0o600

// journalSkew is how far the clocks here and where letters are written may differ.
const journalSkew = time.Minute

// errReplaying says that another command is at it.
var errReplaying = errors.New("another command replays or purges the dead letters of this function; wait until it ends, or stop it")

// openJournal opens the journal of a function, or makes it.
func openJournal(dataDir, function string) (*journal, error) {
	dir := filepath.Join(dataDir, "replays")
	if err := os.MkdirAll(dir, dataDirMode); err != nil {
		return nil, fmt.Errorf("the journal of replays: %w", err)
	}
	path := filepath.Join(dir, url.PathEscape(function))
	j := &journal{path: path, lock: flock.New(path + ".lock"), tried: make(map[string]time.Time)}
	locked, err := j.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("the journal of replays: %w", err)
	}
	if !locked {
		return nil, errReplaying
	}
	if err = j.read(); err == nil {
		j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, journalMode)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the journal of replays: %w", err), j.lock.Unlock())
	}
	return j, nil
}

func (j *journal) read() error {
	text, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for line := range strings.Lines(string(text[:whole])) {
		words := strings.Fields(line)
		switch {
		case len(words) == 3 && words[0] == "begin":
			if nanos, err := strconv.ParseInt(words[2], 10, 64); err == nil {
				j.tried[words[1]] = time.Unix(0, nanos)
			}
		case len(words) == 2 && words[0] == "end":
			delete(j.tried, words[1])
		}
	}
	return os.Truncate(j.path, int64(whole)) // the next line must begin anew
}

// begin notes that one is in hand, and returns when it first was: zero if it
// never was before.
//
// A note from before the letter died is of another one that had its ID: the dead letters'
// source was recreated, and counts from 1 again.
func (j *journal) begin(id string, died, now time.Time) (tried time.Time, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if tried = j.tried[id]; !tried.IsZero() && !tried.Before(died.Add(-journalSkew)) {
		return tried, nil
	}
	j.tried[id] = now
	return time.Time{}, j.write(fmt.Sprintf("begin %s %d\n", id, now.UnixNano()))
}

// end notes that one is out of hand: it is back, and not a dead letter any more;
// or it never was sent.
func (j *journal) end(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, open := j.tried[id]; !open {
		return nil
	}
	delete(j.tried, id)
	return j.write("end " + id + "\n")
}

func (j *journal) write(line string) error {
	if _, err := j.file.WriteString(line); err != nil {
		return fmt.Errorf("the journal of replays: %w", err)
	}
	return nil
}

// close removes the journal where nothing is in hand.
func (j *journal) close() error {
	err := j.file.Close()
	if len(j.tried) == 0 {
		err = errors.Join(err, os.Remove(j.path))
	}
	if err = errors.Join(err, j.lock.Unlock()); err != nil {
		return fmt.Errorf("the journal of replays: %w", err)
	}
	return nil
}
