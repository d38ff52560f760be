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

// Ledger counts the failures of each message in a file. A storage queue counts only
// deliveries, which also increase with a stop or a crash, and stores nothing else with a
// message. A Ledger is safe for concurrent use by one process.
type Ledger struct {
	db *bbolt.DB
}

// ErrLedgerInUse is returned if another process has the ledger open.
var ErrLedgerInUse = errors.New("another daemon uses this data directory")

const (
	ledgerMode = 0o600
	// lockLimit bounds the wait for another process to end.
	lockLimit = time.Second
	// forgetAfter is how long an entry is kept after the last failure of its message, if
	// the message is never received again: another receiver may have deleted it.
	forgetAfter = 30 * 24 * time.Hour
)

// OpenLedger opens or creates the file at path, and deletes expired entries. It returns an error
// if bbolt panics at a damaged page, or faults at a truncated one.
func OpenLedger(path string) (l *Ledger, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if damage := recover(); damage != nil { // the file stays open, since bbolt may hold its locks
			l, err = nil, fmt.Errorf("the ledger of failed attempts, %s, is damaged (%v); remove the file to start over, which forgets earlier failures", path, damage)
		}
	}()
	return readLedger(path)
}

func readLedger(path string) (*Ledger, error) {
	db, err := bbolt.Open(path, ledgerMode, &bbolt.Options{Timeout: lockLimit})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("the ledger of failed attempts, %s: %w; give each its own data_dir", path, ErrLedgerInUse)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the ledger of failed attempts: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the ledger of failed attempts, %s, cannot be read: %w; remove the file to start over, which forgets earlier failures", path, err)
	}
	l := &Ledger{db}
	if err := l.sweep(time.Now()); err != nil {
		return nil, errors.Join(fmt.Errorf("the ledger of failed attempts, %s: %w", path, err), db.Close())
	}
	return l, nil
}

// encodeEntry encodes an entry: the number of failures of a message, and when the entry expires.
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

// sweep deletes expired entries.
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

// failures returns the number of failures of a message.
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

// set records n failures of a message. expires is when the message expires.
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

// forget deletes the entry of a message.
func (l *Ledger) forget(queue, id string) error {
	return l.db.Batch(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(queue)); b != nil {
			return b.Delete([]byte(id))
		}
		return nil
	})
}

// Close closes the file.
func (l *Ledger) Close() error { return l.db.Close() }
