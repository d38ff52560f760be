package autotune

import (
	"math"
	"time"
)

// watch checks during hold whether the settings that were found are still right.
type watch struct {
	recent    []recentSample
	off       float64 // how long the measurements have differed, in seconds
	strange   float64 // how long others have used the machine differently, in seconds
	others    float64 // the cores that they used when the settings were found; below 0 if unknown
	foundBase *window
	// pause is the least time from began to a restart by a change, and every to one without a
	// change.
	pause, every time.Duration
	began        time.Duration
	finished     time.Duration
	before       Settings // the result of the previous search
}

// recentSample is a sample, and the seconds since the one before.
type recentSample struct {
	Sample
	seconds float64
}

const (
	// changed is the change of rates, as a logarithm, that restarts the search; the CPU time of a
	// call must change by twice that. drifted is the same for the change since the settings were
	// found. A change must last for changedFor seconds. Rates are means over recentOver seconds.
	changed    = 0.25
	drifted    = 0.7
	changedFor = 4.0
	recentOver = 4.0
	// elsewhere is the change in the use of cores by others, in cores, and elsewherePart the same
	// as a fraction of all cores; the larger one counts, and no decision is made then. After
	// elsewhereFor seconds, or elsewhereSoon during a search, the new use counts as normal. Below a
	// use of plenty of all cores others do not matter.
	elsewhere     = 0.15
	elsewherePart = 0.08
	elsewhereFor  = 10.0
	elsewhereSoon = 2.0
	plenty        = 0.7
	// firstPause and lastPause bound the time between restarts of the search by changes, and
	// firstEvery and lastEvery the time between restarts without a change.
	firstPause, lastPause = 20 * time.Second, 20 * time.Minute
	firstEvery, lastEvery = 15 * time.Minute, 2 * time.Hour
	// confirm is the time after which the found settings are compared with the best measurement
	// once more, and mostFaded the number of restarts that this may cause.
	confirm   = 10 * time.Second
	mostFaded = 2
	// memoryOf is the time constant of the base's moving mean while nothing changes, in seconds.
	memoryOf = 60.0
)

// dropRecent drops the latest samples.
func (w *watch) dropRecent() { w.recent, w.off = nil, 0 }

// addRecent adds a sample and returns the window of the latest samples, which is as long as a
// verdict needs.
func (w *watch) addRecent(s Sample, seconds, slowest float64) *window {
	w.recent = append(w.recent, recentSample{s, seconds})
	now := newWindow()
	for i := len(w.recent) - 1; i >= 0; i-- {
		now.addSample(w.recent[i].Sample, w.recent[i].seconds)
		if now.seconds >= math.Max(recentOver, 2*slowest) {
			w.recent = w.recent[i:]
			break
		}
	}
	return now
}

// totalDrift returns the change of the rates since the settings were found, as a logarithm. base is
// the measurement now.
func (w *watch) totalDrift(base *window) float64 {
	by, err := gainFrom(w.foundBase, base)
	if math.IsInf(err, 1) {
		return 0
	}
	return math.Abs(by)
}
