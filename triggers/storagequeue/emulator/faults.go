package emulator

import (
	"net/http"
	"slices"
	"time"
)

// Operation is one of the service's.
type Operation int

// The operations. Any is for faults: it matches all.
const (
	Any Operation = iota
	CreateQueue
	DeleteQueue
	GetQueue // its properties
	SetQueue // its metadata
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

// Fault is what goes wrong with the next requests that it matches.
type Fault struct {
	Operation Operation
	Queue     string // empty: any
	Times     int    // how many requests; 0 is all, until it is taken back

	// What happens: the request waits for Delay, then is answered with Status
	// and Code, or the connection is cut before the request is carried out
	// (Cut), or after it, before the answer (LoseAnswer).
	Delay      time.Duration
	Status     int
	Code       string
	RetryAfter string // a header
	Cut        bool
	LoseAnswer bool
}

// Inject has a fault happen. The function takes it back.
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

// fault is the one that a request meets, or nil.
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

// SetClock has the emulator's clock be ahead of this machine's.
func (e *Emulator) SetClock(ahead time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.skew = ahead
}

// SetNewestVersion has it refuse newer versions of the API, such as 2026-02-06.
func (e *Emulator) SetNewestVersion(version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.newest = version
}

// maxSkew is how far a signed request's date may be from the service's time.
const maxSkew = 15 * time.Minute

// refused is why a request is not carried out whatever it asks, or nil.
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
