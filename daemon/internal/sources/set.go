package sources

import (
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers"
)

// Config is what sources are opened with.
type Config struct {
	Settings *configs.Config // complete
	// Parent is the data directory of the daemon whose embedded servers an instance uses.
	// Empty: embedded servers are started here. Commands leave it empty.
	Parent string
	// Started is when the daemon started, or the one that started this instance. Commands leave
	// it zero.
	Started time.Time
	// Stores receives the embedded servers that a Set starts. Commands without a Set leave it nil.
	Stores *Stores
	// Run runs a function, of any kind, on a delivery that no trigger received. found is false if
	// there is no such function; the error is why it cannot run now. Commands leave it nil.
	Run func(function string, d *triggers.Delivery) (found bool, err error)
	Log *slog.Logger
}

// Set is what functions of one configuration share: connections, embedded servers, storage
// accounts and the ledger of failures. It is used by one goroutine.
type Set struct {
	Config
	earlier   *Set // whose resources may be reused; nil: none
	resources map[string]resource
	order     []string // keys of resources, in the order in which they were opened
}

// resource is what several functions share.
type resource interface{ Close() error }

// canReuse reports whether a connection's settings are the same as in the earlier Set. Its open
// resources are reused then.
func (s *Set) canReuse(connection string) bool {
	return s.earlier != nil && reflect.DeepEqual(s.earlier.Settings.Connections[connection], s.Settings.Connections[connection])
}

// DropEarlier releases the earlier Set. Call it when everything is open.
func (s *Set) DropEarlier() { s.earlier = nil }

// Close closes all resources but those that keep has, too; the latest first. keep may be nil. It
// must be called after the triggers and outputs of the Set are closed.
func (s *Set) Close(keep *Set) error {
	var errs []error
	for _, key := range slices.Backward(s.order) {
		if keep != nil && keep.resources[key] == s.resources[key] {
			continue
		}
		errs = append(errs, s.resources[key].Close())
	}
	return errors.Join(errs...)
}

// carryOver takes a resource from the earlier Set, if it is open there.
func (s *Set) carryOver(key string) {
	if s.earlier == nil || s.resources[key] != nil || s.earlier.resources[key] == nil {
		return
	}
	s.addResource(key, s.earlier.resources[key])
}

func (s *Set) addResource(key string, r resource) {
	s.resources[key] = r
	s.order = append(s.order, key)
}

// shareResource returns the resource of a key. It opens one only if neither the Set nor, if
// reusable is set, the earlier Set has it.
func shareResource[T resource](s *Set, key string, reusable bool, open func() (T, error)) (T, error) {
	if reusable {
		s.carryOver(key)
	}
	if r, found := s.resources[key].(T); found {
		return r, nil
	}
	r, err := open()
	if err == nil {
		s.addResource(key, r)
	}
	return r, err
}
