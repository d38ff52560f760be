package interpreters

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// InstallWorker writes a worker's files to a directory below dir and returns its path. The
// name contains the files' hash, so that daemons of different versions do not share
// a directory. Only files with one of the endings are written: running a worker in place
// leaves other files behind.
func InstallWorker(dir, name string, files fs.FS, endings ...string) (string, error) {
	hash := sha256.New()
	texts := make(map[string][]byte)
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains(endings, filepath.Ext(path)) {
			return err
		}
		text, err := fs.ReadFile(files, path)
		texts[path] = text
		_, _ = fmt.Fprintf(hash, "%s %d\n%s", path, len(text), text) // a hash takes everything
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the embedded %s worker: %w", name, err)
	}
	home := filepath.Join(dir, name+"-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	if err := writeAll(dir, name, home, texts); err != nil {
		return "", fmt.Errorf("installing the %s worker: %w", name, err)
	}
	return home, nil
}

// writeAll writes the files to a new directory and renames that to home: home is complete,
// or does not exist.
func writeAll(dir, name, home string, texts map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, name+"-new-")
	if err != nil {
		return err
	}
	for name, text := range texts {
		path := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	if err := openToAll(fresh); err != nil {
		return err
	}
	err = os.Rename(fresh, home)
	if errors.Is(err, fs.ErrExist) { // another daemon was first
		return os.RemoveAll(fresh)
	}
	return err
}

// openToAll lets workers of other users read the files, which hold no secret. The directory above
// decides whether they can reach them. The modes are set afterwards because of the umask.
func openToAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.Chmod(path, 0o755) //nolint:gosec // see above
		}
		return os.Chmod(path, 0o644) //nolint:gosec // see above
	})
}
