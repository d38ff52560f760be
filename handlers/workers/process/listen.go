package process

import (
	"strings"
	"time"
)

const (
	// The wait for output ends after a pause of listenQuiet, and at the latest after
	// listenLimit.
	listenLimit = 500 * time.Millisecond
	listenQuiet = 30 * time.Millisecond
	// maxHeard bounds the returned output, in bytes.
	maxHeard = 64 << 10
)

// OutputAfter calls do, and returns what the process then writes to its standard error. It waits
// at most half a second.
func (p *Process) OutputAfter(do func()) string {
	lines := make(chan string, 1024)
	p.mu.Lock()
	p.listener = lines
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listener = nil
	}()
	do()
	limit := time.NewTimer(listenLimit)
	defer limit.Stop()
	var text strings.Builder
	var quiet <-chan time.Time
	for text.Len() < maxHeard {
		select {
		case line := <-lines:
			text.WriteString(line + "\n")
			quiet = time.After(listenQuiet)
		case <-quiet:
			return text.String()
		case <-limit.C:
			return text.String()
		case <-p.ended:
			return text.String()
		}
	}
	return text.String()
}
