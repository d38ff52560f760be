package storagequeue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// Ledger counts how often each message has failed, in a file: a storage queue
// counts what it hands out, which a stop or a crash makes more, and keeps nothing
// else beside a message. It is safe for use by many goroutines, and by one
// process at a time.
type Ledger struct {
	db *bbolt.DB
}

// ErrLedgerInUse says that another process has the ledger.
var ErrLedgerInUse = errors.New("another daemon runs over this data directory")

const (
	ledgerMode = 0o600
	// lockLimit is how long is waited for another process to end.
	lockLimit = time.Second
	// forgetAfter is how long after its last failure a message is remembered that
	// was never seen again: others may have deleted it.
	forgetAfter = 30 * 24 * time.Hour
)

// OpenLedger opens the file at path, or makes it, and forgets what is over. bbolt panics at a page
// that is damaged, and faults at one that is cut off.
func OpenLedger(path string) (l *Ledger, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if damage := recover(); damage != nil { // what is open of it stays so: bbolt may hold its locks
			l, err = nil, fmt.Errorf("the ledger of failed attempts, %s, is damaged (%v); remove the file to begin anew: how often messages have failed so far is forgotten then", path, damage)
		}
	}()
	return readLedger(path)
}

func readLedger(path string) (*Ledger, error) {
	db, err := bbolt.Open(path, ledgerMode, &bbolt.Options{Timeout: lockLimit})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("the ledger of failed attempts, %s: %w; give each a data_dir of its own", path, ErrLedgerInUse)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the ledger of failed attempts: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the ledger of failed attempts, %s, cannot be read: %w; remove the file to begin anew: how often messages have failed so far is forgotten then", path, err)
	}
	l := &Ledger{db}
	if err := l.sweep(time.Now()); err != nil {
		return nil, errors.Join(fmt.Errorf("the ledger of failed attempts, %s: %w", path, err), db.Close())
	}
	return l, nil
}

// An entry is how often a message has failed, and when to forget it.
func encodeEntry(failures int, until time.Time) []byte {
	return binary.AppendVarint(binary.AppendUvarint(nil, uint64(failures)), until.Unix())
}

func decodeEntry(b []byte) (failures int, until time.Time) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, time.Time{}
	}
	at, _ := binary.Varint(b[size:])
	return int(n), time.Unix(at, 0)
}

// sweep forgets entries whose time is over.
func (l *Ledger) sweep(now time.Time) error {
	return l.db.Update(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			var over [][]byte
			err := b.ForEach(func(id, entry []byte) error {
				if _, until := decodeEntry(entry); until.Before(now) {
					over = append(over, id)
				}
				return nil
			})
			for _, id := range over {
				err = errors.Join(err, b.Delete(id))
			}
			return err
		})
	})
}

// failures is how often a message of a queue has failed.
func (l *Ledger) failures(queue, id string) (n int, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(queue)); b != nil {
			if entry := b.Get([]byte(id)); entry != nil {
				n, _ = decodeEntry(entry)
			}
		}
		return nil
	})
	return n, err
}

// set notes that a message of a queue has failed n times; it ends at expires.
func (l *Ledger) set(queue, id string, n int, expires time.Time) error {
	until := time.Now().Add(forgetAfter)
	if expires.Before(until) {
		until = expires
	}
	return l.db.Batch(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(queue))
		if err != nil {
			return err
		}
		return b.Put([]byte(id), encodeEntry(n, until))
	})
}

// forget drops a message.
func (l *Ledger) forget(queue, id string) error {
	return l.db.Batch(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(queue)); b != nil {
			return b.Delete([]byte(id))
		}
		return nil
	})
}

// Close frees the file.
func (l *Ledger) Close() error { return l.db.Close() }
