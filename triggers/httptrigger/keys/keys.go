// Package keys decides which requests may run a function. Keys are the same as in the Azure Functions
// host: a master key, keys for all functions, and keys of single functions. They are given as
// values, or as files: those that the host writes, or those of the Kubernetes secret that Azure's
// tools create.
//
// Keys are compared in constant time, and appear in no error.
package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Level is which key a request needs.
type Level string

// The levels.
const (
	Anonymous Level = "anonymous" // none
	Function  Level = "function"  // one of the function, one of all functions, or the master key
	Admin     Level = "admin"     // the master key
)

// Config has keys as values, and a directory with files.
type Config struct {
	Master    string
	Default   string            // for all functions
	Functions map[string]string // by function
	// Directory has host.json, with the master key and the keys of all functions, and NAME.json
	// for a function; or a file for each key: host.master, host.function.KEY and
	// functions.NAME.KEY. Empty: there are no files.
	Directory string
}

const (
	// maxFile bounds a file, in bytes.
	maxFile = 1 << 20
	// recheck is how often a directory is read again.
	recheck  = 5 * time.Second
	hostFile = "host.json"
)

// Ring has the keys. It is safe for use by many goroutines.
type Ring struct {
	cfg Config

	mu   sync.Mutex
	read time.Time
	now  *contents
	err  error // of the last read of the directory
}

// contents are hashes of the keys, so that all have the same length.
type contents struct {
	master, all []hash
	functions   map[string][]hash // by function in lower case
}

type hash = [sha256.Size]byte

// New returns a ring. The error is about the directory's files.
func New(cfg Config) (*Ring, error) {
	r := &Ring{cfg: cfg}
	var err error
	r.now, err = cfg.readKeys()
	r.read = time.Now()
	return r, err
}

// IsEmpty reports whether there are no keys at all.
func (r *Ring) IsEmpty() bool {
	c := r.current()
	return len(c.master) == 0 && len(c.all) == 0 && len(c.functions) == 0
}

// HasKeyFor reports whether any key may run a function at a level.
func (r *Ring) HasKeyFor(function string, level Level) bool {
	c := r.current()
	if level == Anonymous || len(c.master) > 0 {
		return true
	}
	return level == Function && len(c.all)+len(c.functions[strings.ToLower(function)]) > 0
}

// Allows reports whether a request with a key may run a function. Its time does not depend on the
// keys.
func (r *Ring) Allows(function string, level Level, key string) bool {
	if level == Anonymous {
		return true
	}
	c := r.current()
	given := sha256.Sum256([]byte(key))
	equal := 0
	for _, list := range [][]hash{c.master, c.all, c.functions[strings.ToLower(function)]} {
		for i := range list {
			equal |= subtle.ConstantTimeCompare(given[:], list[i][:])
		}
		if level == Admin {
			break
		}
	}
	return equal == 1 && key != ""
}

// Err returns why the files could not be read again; nil if they could. The earlier keys stay.
func (r *Ring) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// current returns the keys. It reads files again from time to time.
func (r *Ring) current() *contents {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cfg.Directory == "" || time.Since(r.read) < recheck {
		return r.now
	}
	r.read = time.Now()
	next, err := r.cfg.readKeys()
	if r.err = err; err == nil {
		r.now = next
	}
	return r.now
}

func (c Config) readKeys() (*contents, error) {
	out := &contents{functions: make(map[string][]hash)}
	out.master = addKey(nil, c.Master)
	out.all = addKey(nil, c.Default)
	for name, key := range c.Functions {
		name = strings.ToLower(name)
		if list := addKey(out.functions[name], key); len(list) > 0 {
			out.functions[name] = list
		}
	}
	if c.Directory == "" {
		return out, nil
	}
	files, err := os.ReadDir(c.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("the directory of keys %s does not exist", c.Directory)
	}
	if err != nil {
		return out, fmt.Errorf("the directory of keys: %w", err)
	}
	for _, file := range files {
		name := strings.ToLower(file.Name())
		if file.IsDir() || strings.Contains(name, ".snapshot.") { // the host's backups
			continue
		}
		if err := out.addFile(name, filepath.Join(c.Directory, file.Name())); err != nil {
			return out, err
		}
	}
	return out, nil
}

// addFile adds the keys of a file, by its name in lower case.
func (out *contents) addFile(name, path string) error {
	if function, isJSON := strings.CutSuffix(name, ".json"); isJSON {
		of, err := readFile(path)
		if name == hostFile {
			out.master = append(out.master, of.master...)
			out.all = append(out.all, of.all...)
		} else {
			out.functions[function] = append(out.functions[function], of.keys...)
		}
		return err
	}
	function, ofFunction := strings.CutPrefix(name, "functions.")
	function, _, named := strings.Cut(function, ".")
	isMaster, ofAll := name == "host.master", strings.HasPrefix(name, "host.function.")
	if !isMaster && !ofAll && (!ofFunction || !named) {
		return nil // another file
	}
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("keys in %s: %w", path, err)
	}
	switch key := strings.TrimSpace(string(text)); {
	case isMaster:
		out.master = addKey(out.master, key)
	case ofAll:
		out.all = addKey(out.all, key)
	default:
		out.functions[function] = addKey(out.functions[function], key)
	}
	return nil
}

func addKey(to []hash, key string) []hash {
	if key == "" {
		return to
	}
	return append(to, sha256.Sum256([]byte(key)))
}

// storedKey is a key in a file of the host.
type storedKey struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	Encrypted bool   `json:"encrypted"`
}

// fileKeys are the keys of a file.
type fileKeys struct{ master, all, keys []hash }

// openFile opens a file of bounded size.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		err = errors.New("it is not a file of up to 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("keys in %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, nil
}

// readFile reads a file of the host. Its errors quote nothing of it.
func readFile(path string) (out fileKeys, err error) {
	f, err := openFile(path)
	if err != nil {
		return out, err
	}
	defer func() { _ = f.Close() }() // it was only read
	var content struct {
		MasterKey    storedKey   `json:"masterKey"`
		FunctionKeys []storedKey `json:"functionKeys"`
		Keys         []storedKey `json:"keys"`
	}
	if err := json.NewDecoder(f).Decode(&content); err != nil {
		return out, fmt.Errorf("keys in %s: it is not JSON in the format of the Azure Functions host", path)
	}
	for _, group := range []struct {
		to   *[]hash
		keys []storedKey
	}{{&out.master, []storedKey{content.MasterKey}}, {&out.all, content.FunctionKeys}, {&out.keys, content.Keys}} {
		for _, key := range group.keys {
			if key.Encrypted {
				return out, fmt.Errorf("keys in %s: the key %q is encrypted, which only the Azure Functions host can read; write it in plain text with \"encrypted\": false, and chmod 600 the file", path, key.Name)
			}
			*group.to = addKey(*group.to, key.Value)
		}
	}
	return out, nil
}
