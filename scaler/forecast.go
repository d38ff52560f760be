package scaler

import (
	"math"
	"time"
)

// forecast follows a rate: its level, its trend, and a season where one is seen.
// It is told one rate after the other and never looks back further than it must.
type forecast struct {
	begun bool
	at    float64 // s
	level float64 // messages/s
	trend float64 // messages/s, each second
	noise float64 // of one second's rate: its variance
	past  season
}

const (
	// levelOver is how long the level looks back, in seconds: long enough to smooth
	// the noise of single looks, short against the target.
	levelOver = 20
	// trendOver is how long the trend does.
	trendOver = 60
	// noiseOver is how long the noise does.
	noiseOver = 120
	// jump is by how many standard deviations a rate differs from the level for the
	// level to be taken to have jumped.
	jump = 4
	// sure is by how many the trend must stand out to be reckoned with.
	sure = 2
)

// see takes the rate of the last seconds.
func (f *forecast) see(at time.Duration, rate float64) {
	now := at.Seconds()
	if !f.begun {
		f.begun, f.at, f.level, f.noise = true, now, rate, rate
		f.past.see(now, rate)
		return
	}
	seconds := now - f.at
	if seconds <= 0 {
		return
	}
	f.at = now
	f.past.see(now, rate)
	expected := f.level + f.trend*seconds
	off := rate - expected
	// Counts of independent messages have a variance of as many; bursts have more.
	deviation := math.Sqrt(math.Max(f.noise, math.Max(f.level, 1)) / seconds)
	if off > jump*deviation || off < -jump*deviation && f.level > 0 {
		// A jump says nothing of the noise, but its height is not trend either.
		f.level, f.trend = rate, 0
		f.noise = math.Max(f.noise, rate)
		return
	}
	a, b, c := share(seconds, levelOver), share(seconds, trendOver), share(seconds, noiseOver)
	before := f.level
	f.level = math.Max(expected+a*off, 0)
	f.trend += b * ((f.level-before)/seconds - f.trend)
	f.noise += c * (off*off*seconds - f.noise)
}

// share is the weight of the newest seconds where so many are looked back on.
func share(seconds, over float64) float64 { return 1 - math.Exp(-seconds/over) }

// error is the standard deviation of the level.
func (f *forecast) deviation() float64 {
	return math.Sqrt(math.Max(f.noise, f.level) / (2 * levelOver))
}

// after is the rate that is expected in so long; at least 0.
func (f *forecast) after(d time.Duration) float64 {
	ahead := d.Seconds()
	rate := f.level
	// The slope of a line through noise, over trendOver, is off by about this.
	if slope := math.Abs(f.trend); slope*trendOver > sure*f.deviation() {
		// A trend is trusted for as long as it was watched, and less beyond.
		rate += f.trend * trendOver * share(ahead, trendOver)
	}
	if ratio, seen := f.past.ratio(f.at, f.at+ahead); seen {
		rate = f.level * ratio
	}
	return math.Max(rate, 0)
}

// season is a pattern that comes again: the arrivals are kept in cells of time,
// and when the last two rounds of a day or an hour are alike, so will be the next.
type season struct {
	cells  []float64 // means, a ring
	first  int64     // the number of the oldest kept cell
	count  int
	sum    float64 // of the cell under way
	within float64 // s, of it
	number int64   // of it
	period int64   // in cells; 0: none is seen
	begun  bool
}

const (
	// cell is the length of a cell, in seconds.
	cell = 60
	// keepCells are two days and a bit.
	keepCells = 2*24*60 + 60
	// alike is the correlation of two rounds from which on a season is seen.
	alike = 0.7
	// swing is by which part of its mean a rate must swing for a season to matter.
	swing = 0.1
)

// periods are the rounds that are looked for, in cells: an hour and a day.
var periods = []int64{60, 24 * 60}

func (s *season) see(now, rate float64) {
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
		for ; s.number < number; s.number++ { // a gap is taken to be as what went before
			s.keep(mean)
		}
		s.sum, s.within = 0, 0
		s.look()
	}
	s.sum += rate
	s.within++
}

func (s *season) keep(mean float64) {
	if s.cells == nil {
		s.cells = make([]float64, keepCells)
	}
	s.cells[s.number%keepCells] = mean
	if s.count++; s.count > keepCells {
		s.count = keepCells
		s.first++
	}
}

// look looks for the period, now and then.
func (s *season) look() {
	if s.number%15 != 0 {
		return
	}
	s.period = 0
	for _, p := range periods {
		if int64(s.count) >= 2*p && s.correlation(p) >= alike {
			s.period = p
			return
		}
	}
}

// correlation is that of the last round with the one before it; 0 where neither
// swings.
func (s *season) correlation(p int64) float64 {
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

// ratio is how much the rate grew between now and then a period ago, by a line
// between the middles of cells.
func (s *season) ratio(now, then float64) (r float64, seen bool) {
	if s.period == 0 {
		return 0, false
	}
	back := float64(s.period * cell)
	if then-back >= float64(s.number*cell)-cell {
		return 0, false
	}
	a, b := s.value(now-back), s.value(then-back)
	if a <= 0 {
		return 0, false
	}
	return math.Min(b/a, 10), true
}

func (s *season) value(at float64) float64 {
	x := at/cell - 0.5
	i := int64(math.Floor(x))
	get := func(i int64) float64 {
		i = min(max(i, s.first), s.number-1)
		return s.cells[i%keepCells]
	}
	part := x - float64(i)
	return get(i)*(1-part) + get(i+1)*part
}
