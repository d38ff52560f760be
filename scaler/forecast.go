package scaler

import (
	"math"
	"time"
)

// forecast tracks a rate: its level, its trend, and its season, if it has one.
type forecast struct {
	begun bool
	at    float64 // s
	level float64 // messages/s
	trend float64 // messages/s, each second
	noise float64 // the variance of the rate of one second
	past  season
}

const (
	// levelOver is the time constant of the level, in seconds: long enough to smooth the noise
	// of single measurements, short compared with the target.
	levelOver = 20
	// trendOver is the time constant of the trend, in seconds.
	trendOver = 60
	// noiseOver is the time constant of the noise, in seconds.
	noiseOver = 120
	// jump is the deviation from the level, in standard deviations, that counts as a jump of
	// the level.
	jump = 4
	// sure is the number of standard deviations by which the trend must exceed its noise to be
	// used.
	sure = 2
)

// addRate takes the mean rate since the last call.
func (f *forecast) addRate(at time.Duration, rate float64) {
	now := at.Seconds()
	if !f.begun {
		f.begun, f.at, f.level, f.noise = true, now, rate, rate
		f.past.addRate(now, rate)
		return
	}
	seconds := now - f.at
	if seconds <= 0 {
		return
	}
	f.at = now
	f.past.addRate(now, rate)
	expected := f.level + f.trend*seconds
	off := rate - expected
	// Counts of independent messages have a variance equal to their mean; bursts have more.
	deviation := math.Sqrt(math.Max(f.noise, math.Max(f.level, 1)) / seconds)
	if off > jump*deviation || off < -jump*deviation && f.level > 0 {
		// A jump is no information about the noise, and its height is not a trend.
		f.level, f.trend = rate, 0
		f.noise = math.Max(f.noise, rate)
		return
	}
	a, b, c := latestWeight(seconds, levelOver), latestWeight(seconds, trendOver), latestWeight(seconds, noiseOver)
	before := f.level
	f.level = math.Max(expected+a*off, 0)
	f.trend += b * ((f.level-before)/seconds - f.trend)
	f.noise += c * (off*off*seconds - f.noise)
}

// latestWeight returns the weight of the latest seconds in a moving mean with the time constant over.
func latestWeight(seconds, over float64) float64 { return 1 - math.Exp(-seconds/over) }

// levelDeviation returns the standard deviation of the level: that of a moving mean with the time
// constant levelOver.
func (f *forecast) levelDeviation() float64 {
	return math.Sqrt(math.Max(f.noise, f.level) / (2 * levelOver))
}

// rateAfter returns the expected rate after d; at least 0.
func (f *forecast) rateAfter(d time.Duration) float64 {
	ahead := d.Seconds()
	rate := f.level
	// The slope of a line through noise, over trendOver, is off by about this much.
	if slope := math.Abs(f.trend); slope*trendOver > sure*f.levelDeviation() {
		// A trend is extrapolated by trendOver at most.
		rate += f.trend * trendOver * latestWeight(ahead, trendOver)
	}
	if ratio, seen := f.past.rateRatio(f.at, f.at+ahead); seen {
		rate = f.level * ratio
	}
	return math.Max(rate, 0)
}

// season is a periodic pattern. It keeps the arrivals in cells of time. If the last two periods
// of an hour or a day are similar, the next is expected to be similar, too.
type season struct {
	cells  []float64 // means, a ring
	first  int64     // the number of the oldest kept cell
	count  int
	sum    float64 // of the current cell
	within float64 // s, of it
	number int64   // of the current cell
	period int64   // in cells; 0 is none
	begun  bool
}

const (
	// cell is the length of a cell, in seconds.
	cell = 60
	// keepCells is the number of cells: two days, the longest two periods, and an hour.
	keepCells = 2*24*60 + 60
	// alike is the correlation of two periods from which on the pattern counts as a season.
	alike = 0.7
	// swing is the relative standard deviation of a rate below which a season does not matter.
	swing = 0.1
)

// periods are the possible periods, in cells: an hour and a day.
var periods = []int64{60, 24 * 60}

func (s *season) addRate(now, rate float64) {
	number := int64(now / cell)
	if !s.begun {
		s.begun, s.number, s.first = true, number, number
	}
	if number < s.number {
		return
	}
	if number > s.number {
		mean := rate
		if s.within > 0 {
			mean = s.sum / s.within
		}
		for ; s.number < number; s.number++ { // a gap is filled with the rate before it
			s.addCell(mean)
		}
		s.sum, s.within = 0, 0
		s.findPeriod()
	}
	s.sum += rate
	s.within++
}

func (s *season) addCell(mean float64) {
	if s.cells == nil {
		s.cells = make([]float64, keepCells)
	}
	s.cells[s.number%keepCells] = mean
	if s.count++; s.count > keepCells {
		s.count = keepCells
		s.first++
	}
}

// findPeriod searches for the period, every 15 cells.
func (s *season) findPeriod() {
	if s.number%15 != 0 {
		return
	}
	s.period = 0
	for _, p := range periods {
		if int64(s.count) >= 2*p && s.periodCorrelation(p) >= alike {
			s.period = p
			return
		}
	}
}

// periodCorrelation returns that of the last period with the one before it; 0 if one of them is
// almost constant.
func (s *season) periodCorrelation(p int64) float64 {
	var sx, sy, sxx, syy, sxy float64
	n := float64(p)
	for i := s.number - p; i < s.number; i++ {
		x, y := s.cells[i%keepCells], s.cells[(i-p)%keepCells]
		sx, sy = sx+x, sy+y
		sxx, syy, sxy = sxx+x*x, syy+y*y, sxy+x*y
	}
	vx, vy := sxx/n-sx/n*sx/n, syy/n-sy/n*sy/n
	if math.Sqrt(math.Max(vx, 0)) < swing*sx/n || math.Sqrt(math.Max(vy, 0)) < swing*sy/n || vx <= 0 || vy <= 0 {
		return 0
	}
	return (sxy/n - sx/n*sy/n) / math.Sqrt(vx*vy)
}

// rateRatio returns by which factor the rate changed between now and then, one period ago. It
// interpolates between the middles of cells, and is at most 10.
func (s *season) rateRatio(now, then float64) (r float64, seen bool) {
	if s.period == 0 {
		return 0, false
	}
	back := float64(s.period * cell)
	if then-back >= float64(s.number*cell)-cell {
		return 0, false
	}
	a, b := s.valueAt(now-back), s.valueAt(then-back)
	if a <= 0 {
		return 0, false
	}
	return math.Min(b/a, 10), true
}

func (s *season) valueAt(at float64) float64 {
	x := at/cell - 0.5
	i := int64(math.Floor(x))
	get := func(i int64) float64 {
		i = min(max(i, s.first), s.number-1)
		return s.cells[i%keepCells]
	}
	part := x - float64(i)
	return get(i)*(1-part) + get(i+1)*part
}
