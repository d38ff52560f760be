package runtimes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// maxFiles bounds how many files of an app are looked at for whether they changed.
const maxFiles = 20_000

// Fingerprint tells one state of an app's code from another, by the names, sizes
// and times of the files below dir that isCode, by their name. Hidden directories, such as .venv, and
// those of other languages' packages are passed over. What cannot be read is as if
// it were not there: it cannot be imported either.
func Fingerprint(dir string, isCode func(name string) bool) string {
	hash, files := sha256.New(), 0
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // see above
		case entry.IsDir():
			if name := entry.Name(); path != dir && (strings.HasPrefix(name, ".") || name == "__pycache__" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		case !isCode(entry.Name()):
			return nil
		}
		if files++; files > maxFiles {
			return fs.SkipAll
		}
		info, err := entry.Info()
		if err != nil {
			return nil //nolint:nilerr // it went in this moment
		}
		_, _ = fmt.Fprintf(hash, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano()) // a hash takes everything
		return nil
	})
	return hex.EncodeToString(hash.Sum(nil))
}
