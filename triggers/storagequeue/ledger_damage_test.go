package storagequeue

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// TestADamagedLedger opens a ledger with truncated or overwritten pages: the error includes the
// solution.
func TestADamagedLedger(t *testing.T) {
	for name, damage := range map[string]func(path string, size int64) error{
		"cut off": func(path string, _ int64) error { return os.Truncate(path, 4*int64(os.Getpagesize())) },
		"overwritten": func(path string, size int64) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			meta := 2 * int64(os.Getpagesize())
			_, err = f.WriteAt([]byte(strings.Repeat("x", int(size-meta))), meta)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			l, err := OpenLedger(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("queue"))
				for i := 0; err == nil && i < 5000; i++ {
					err = b.Put(fmt.Append(nil, "message", i), encodeEntry(3, time.Now().Add(time.Hour)))
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(path, info.Size()); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenLedger(path); err == nil || !strings.Contains(err.Error(), "remove the file to start over") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
