package deadletter

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

// journal records in a file which dead letters a replay is sending. To send one back and to
// remove it are two steps, and the process may be killed between them: the next run finds the
// letter in the journal, and checks whether it was sent. The journal survives the end of the
// process, not a power failure. Its methods may be called from any goroutine, except for closeFile.
//
// A line is "begin ID TIME" or "end ID". A begin is written before the letter is sent, so one
// that was cut off can be ignored.
type journal struct {
	path string
	lock *flock.Flock

	mu    sync.Mutex
	file  *os.File
	tried map[string]time.Time // started and not finished
}

const (
	journalMode = 0o600
	dataDirMode = 0o700 // of a data directory that is created here
)

// journalSkew is the maximum difference between the clocks of this machine and of the source.
const journalSkew = time.Minute

// errReplaying reports that another command holds the lock of the journal.
var errReplaying = errors.New("another command replays or purges the dead letters of this function; wait until it ends, or stop it")

// openJournal opens the journal of a function, or creates it, and locks it.
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
	if err = j.readLines(); err == nil {
		j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, journalMode)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the journal of replays: %w", err), j.lock.Unlock())
	}
	return j, nil
}

func (j *journal) readLines() error {
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
	return os.Truncate(j.path, int64(whole)) // the next line must start on a new line
}

// beginLetter records that a letter is about to be sent. It returns when that was recorded
// first, or zero if this is the first time.
//
// A record from before the letter died belongs to another letter with the same ID: the source
// of the dead letters was recreated, and counts from 1 again.
func (j *journal) beginLetter(id string, died, now time.Time) (tried time.Time, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if tried = j.tried[id]; !tried.IsZero() && !tried.Before(died.Add(-journalSkew)) {
		return tried, nil
	}
	j.tried[id] = now
	return time.Time{}, j.writeLine(fmt.Sprintf("begin %s %d\n", id, now.UnixNano()))
}

// endLetter records that a letter was sent and removed, or was never sent.
func (j *journal) endLetter(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, open := j.tried[id]; !open {
		return nil
	}
	delete(j.tried, id)
	return j.writeLine("end " + id + "\n")
}

func (j *journal) writeLine(line string) error {
	if _, err := j.file.WriteString(line); err != nil {
		return fmt.Errorf("the journal of replays: %w", err)
	}
	return nil
}

// closeFile closes and unlocks the journal, and removes it if it has no letter.
func (j *journal) closeFile() error {
	err := j.file.Close()
	if len(j.tried) == 0 {
		err = errors.Join(err, os.Remove(j.path))
	}
	if err = errors.Join(err, j.lock.Unlock()); err != nil {
		return fmt.Errorf("the journal of replays: %w", err)
	}
	return nil
}
