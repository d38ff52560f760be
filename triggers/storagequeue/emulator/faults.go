package emulator

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// Operation is an operation of the service.
type Operation int

// The operations. Any is for faults: it matches every operation.
const (
	Any Operation = iota
	CreateQueue
	DeleteQueue
	GetQueue // get the properties
	SetQueue // set the metadata
	ListQueues
	Put
	Get
	Peek
	Clear
	Update
	Delete
	unknown
	operations
)

func (o Operation) String() string {
	return [...]string{"any", "create queue", "delete queue", "get queue", "set queue", "list queues", "put", "get", "peek", "clear", "update", "delete", "unknown"}[o]
}

// Fault is an injected fault of the next requests that it matches.
type Fault struct {
	Operation Operation
	Queue     string // empty: any
	Times     int    // number of requests; 0: all, until the fault is removed

	// The effect: the request waits for Delay. Then it is answered with Status and Code, or the
	// connection is closed before the request is carried out (Cut), or between that and the
	// response (LoseAnswer).
	Delay      time.Duration
	Status     int
	Code       string
	RetryAfter string // a header
	Cut        bool
	LoseAnswer bool
}

// faults are the differences from the service: injected faults, the clock, and the version. They are
// safe for concurrent use.
type faults struct {
	mu     sync.Mutex
	list   []*Fault
	skew   time.Duration // by which its clock is ahead
	newest string        // the newest API version that it accepts; empty: all
}

// Inject injects a fault. The returned function removes it.
func (f *faults) Inject(fault Fault) (takeBack func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := &fault
	f.list = append(f.list, own)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.list = slices.DeleteFunc(f.list, func(other *Fault) bool { return other == own })
	}
}

// match returns the fault that matches a request; nil if there is none.
func (f *faults) match(op Operation, queue string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, one := range f.list {
		if one.Operation != Any && one.Operation != op || one.Queue != "" && one.Queue != queue {
			continue
		}
		met := *one
		if one.Times > 0 {
			if one.Times--; one.Times == 0 {
				f.list = slices.Delete(f.list, i, i+1)
			}
		}
		return &met
	}
	return nil
}

// SetClock sets how far the emulator's clock is ahead of this machine's.
func (f *faults) SetClock(ahead time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skew = ahead
}

// now returns the emulator's time.
func (f *faults) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.skew)
}

// SetNewestVersion makes the emulator refuse newer versions of the API, such as 2026-02-06.
func (f *faults) SetNewestVersion(version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = version
}

// maxSkew bounds the difference between the date of a signed request and the service's time.
const maxSkew = 15 * time.Minute

// refused returns the failure of a request that is refused regardless of its operation; nil if it
// is not.
func (f *faults) refused(r *http.Request) *failure {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if version := r.Header.Get("x-ms-version"); f.newest != "" && version > f.newest {
		return &failure{http.StatusBadRequest, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format: the API version " + version + " is not supported."}
	}
	if date, err := http.ParseTime(r.Header.Get("x-ms-date")); err == nil && r.Header.Get("Authorization") != "" {
		if off := now.Sub(date); off.Abs() > maxSkew {
			return &failure{http.StatusForbidden, "AuthenticationFailed", "Server failed to authenticate the request. Request date header is too old or too new: " + r.Header.Get("x-ms-date")}
		}
	}
	return nil
}
