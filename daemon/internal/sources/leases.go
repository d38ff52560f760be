package sources

import (
	"errors"
	"path/filepath"

	"github.com/drover-run/drover/triggers/lease/record"
)

const (
	// recordKey is the key of the record of leases in a Set.
	recordKey = "record of leases"
	// recordDir is its directory in data_dir.
	recordDir = "leases"
)

// shareRecord returns the record of leases for a trigger. It is nil if the trigger receives nothing, or
// if leases cannot be recorded, which is no reason not to start. It is one file, so an earlier Set's is
// always reused.
func shareRecord(s *Set, t TriggerConfig) *record.Record {
	if !t.Receives {
		return nil
	}
	r, _ := shareResource(s, recordKey, true, func() (*record.Record, error) {
		r, err := record.Open(filepath.Join(s.Settings.DataDir, recordDir), s.Log)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			s.Log.Warn("leases are not recorded: if this daemon is killed, its messages in flight wait until their leases expire", "error", err)
		}
		return r, nil
	})
	return r
}
