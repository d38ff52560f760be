package daemon

import "fmt"

// Summary returns the state of the daemon in one line. It takes the locks that messages take, so
// it does not return while one of those is stuck.
func (d *Daemon) Summary() string {
	var received, done, failed, inFlight int64
	for _, s := range d.Status() {
		received, done, failed, inFlight = received+s.Received, done+s.Done, failed+s.Failed, inFlight+s.InFlight
	}
	for _, f := range d.running() {
		f.Share.Room()
	}
	for _, p := range d.appRegistry.CurrentPools() {
		p.Stats()
	}
	return fmt.Sprintf("%s: received %d, done %d, failed %d, in flight %d", d.inPhase(), received, done, failed, inFlight)
}
