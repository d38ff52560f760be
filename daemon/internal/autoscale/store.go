package autoscale

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/scaler/autotune"
)

// saveInterval is how often the results are saved, if they have changed.
const saveInterval = 30 * time.Second

// Store keeps what tuning has learned of each app across restarts, in the file tuning.json of
// data_dir. It is safe for use by many goroutines.
type Store struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	apps map[string]storedApp
}

// storedApp has the results for one app.
type storedApp struct {
	autotune.Learned
	// Identity identifies the code and the user's settings that were measured.
	Identity string `json:"of"`
}

// appIdentity identifies an app's code, its settings and its functions.
func appIdentity(cfg *configs.Config, app, code string) string {
	settings := cfg.Apps[app]
	if settings.Scaled { // the number comes from the machine, not from the user
		settings.Processes = 0
	}
	text, err := json.Marshal([]any{code, settings, apps.AppFunctions(cfg)[app]})
	if err != nil {
		return "" // it has only strings and numbers
	}
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:16])
}

// OpenStore reads the store of a data directory, if there is one. A file that cannot be
// read is logged and replaced: its measurements are made again.
func OpenStore(dir string, log *slog.Logger) *Store {
	s := &Store{path: filepath.Join(dir, "tuning.json"), log: log, apps: make(map[string]storedApp)}
	err := s.readFile()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("saved measurements of the apps cannot be read; they will be measured again", "file", s.path, "error", err)
	}
	if err != nil || s.apps == nil { // null is valid JSON
		s.apps = make(map[string]storedApp)
	}
	return s
}

// maxStore bounds the file that is read, in bytes. An app takes a few KiB of it.
const maxStore = 16 << 20

func (s *Store) readFile() error {
	info, err := os.Stat(s.path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > maxStore:
		return fmt.Errorf("%s is not a file that drover wrote: %v, %d bytes; remove it", s.path, info.Mode(), info.Size())
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &s.apps)
}

// learnedOf returns the results for an app; nil if there are none.
func (s *Store) learnedOf(app, of string) *autotune.Learned {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, found := s.apps[app]
	if !found {
		return nil
	}
	if last.Identity != of {
		last.Learned = last.Changed()
	}
	return &last.Learned
}

// saveLearned saves the results for an app, if they have changed.
func (s *Store) saveLearned(app, of string, learned autotune.Learned) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := storedApp{learned, of}
	if reflect.DeepEqual(s.apps[app], next) {
		return
	}
	s.apps[app] = next
	if err := s.writeFile(); err != nil {
		s.log.Warn("cannot save the measurements of the apps", "error", err)
	}
}

func (s *Store) writeFile() error {
	text, err := json.MarshalIndent(s.apps, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", s.path, err)
	}
	temporary := s.path + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, s.path)
}
