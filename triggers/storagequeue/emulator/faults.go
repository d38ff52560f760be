package emulator

import (
	"net/http"
	"slices"
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

// Inject injects a fault. The returned function removes it.
func (e *Emulator) Inject(f Fault) (takeBack func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	own := &f
	e.faults = append(e.faults, own)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.faults = slices.DeleteFunc(e.faults, func(other *Fault) bool { return other == own })
	}
}

// fault returns the fault that matches a request; nil if there is none.
func (e *Emulator) fault(op Operation, queue string) *Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, f := range e.faults {
		if f.Operation != Any && f.Operation != op || f.Queue != "" && f.Queue != queue {
			continue
		}
		met := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				e.faults = slices.Delete(e.faults, i, i+1)
			}
		}
		return &met
	}
	return nil
}

// SetClock sets how far the emulator's clock is ahead of this machine's.
func (e *Emulator) SetClock(ahead time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.skew = ahead
}

// SetNewestVersion makes the emulator refuse newer versions of the API, such as 2026-02-06.
func (e *Emulator) SetNewestVersion(version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.newest = version
}

// maxSkew bounds the difference between the date of a signed request and the service's time.
const maxSkew = 15 * time.Minute

// refused returns the failure of a request that is refused regardless of its operation; nil if it
// is not.
func (e *Emulator) refused(r *http.Request) *failure {
	e.mu.Lock()
	defer e.mu.Unlock()
	if version := r.Header.Get("x-ms-version"); e.newest != "" && version > e.newest {
		return &failure{http.StatusBadRequest, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format: the API version " + version + " is not supported."}
	}
	if date, err := http.ParseTime(r.Header.Get("x-ms-date")); err == nil && r.Header.Get("Authorization") != "" {
		if off := e.now().Sub(date); off.Abs() > maxSkew {
			return &failure{http.StatusForbidden, "AuthenticationFailed", "Server failed to authenticate the request. Request date header is too old or too new: " + r.Header.Get("x-ms-date")}
		}
	}
	return nil
}
