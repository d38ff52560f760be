package autotune

import (
	"math"
	"math/rand/v2"
	"time"
)

// A model of a pool that simulates minutes in milliseconds: in steps of 2 ms, calls change from
// computing, where they share the cores and their process's GIL, to waiting, and then end. The
// number that ends in a step is random, so rates are as noisy as real ones.
//
// A test plays its world in one goroutine. The functions that run for each call are not checked for
// races: the check takes most of the time of these tests.

const step = 2 * time.Millisecond

// executorThreads is the maximum number of threads of the loop's executor
// (handlers/python/worker/drover/executor.py).
const executorThreads = 512

// model describes how one function behaves.
type model struct {
	name     string
	async    bool
	cpu      float64 // s of a core a call takes
	wait     float64 // s that it waits
	releases bool    // computes without the GIL
	parts    int     // >0: the wait is so many on the loop's executor, each wait/parts
	blocks   bool    // waits without letting the event loop turn
	memory   float64 // bytes a call in flight takes
	arrivals float64 // calls/s; 0: there is always more to do
	limit    int
	timeout  time.Duration
	down     float64 // what it waits for handles this many a second; 0: no limit
	// inner > 0: a library computes the call in as many threads as its process has cores, or if it ignores that,
	// as there are cores. A call's CPU time grows by inner for each thread more, by crowding for each process more,
	// and by thrashing for each time that the threads exceed the cores.
	inner, crowding, thrashing float64
	ignores                    bool
}

// threads is how many threads compute a call.
func (w *world) threads(m model) float64 {
	switch {
	case m.inner == 0:
		return 1
	case m.ignores:
		return w.cores
	}
	return math.Max(math.Floor(w.cores/float64(max(w.set.Processes, 1))), 1)
}

// cost is the CPU time of a call.
func (w *world) cost(m model) float64 {
	threads, processes := w.threads(m), float64(max(w.set.Processes, 1))
	over := math.Max(threads*processes*float64(w.set.Threads)/w.cores-1, 0)
	return m.cpu * (1 + m.inner*(threads-1)) * (1 + m.crowding*(processes-1)) * (1 + m.thrashing*over)
}

// world is a machine with one pool on it.
type world struct {
	random   *rand.Rand
	models   []model
	cores    float64
	others   float64
	overhead float64 // s of the daemon's CPU that a call takes
	convoy   float64 // by what part a runnable thread more slows its process
	startUp  time.Duration
	limit    uint64
	leak     float64 // bytes/s
	base     float64 // bytes a worker takes
	leaked   float64
	examines bool // calls are examined: their delays are measured

	share   float64 // of its demand that a process got of the cores, in the step before
	now     time.Duration
	set     Settings
	limits  map[string]int
	procs   []*proc
	daemon  float64 // cores, in the step before
	backlog []float64
	total   []float64 // calls ended, since the start
	sum     []Function
	usage   struct{ cpu, daemon, queue, at float64 }
}

type proc struct {
	ready  time.Duration
	on     []float64 // computing
	off    []float64 // waiting
	carry  []float64 // calls computed, less than one
	begins [][]time.Duration
}

func newWorld(seed uint64, cores float64, models ...model) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, 1)), models: models, cores: cores, overhead: 30e-6, convoy: 0.002,
		startUp: 400 * time.Millisecond, base: 40e6,
	}
	w.mix(models...)
	return w
}

// mix replaces the work of the functions, and forgets the calls in flight.
func (w *world) mix(models ...model) {
	w.models = models
	w.backlog, w.total, w.sum = make([]float64, len(models)), make([]float64, len(models)), make([]Function, len(models))
	for _, p := range w.procs {
		p.forget(len(models))
	}
	w.clear()
}

func (p *proc) forget(n int) {
	p.on, p.off, p.carry, p.begins = make([]float64, n), make([]float64, n), make([]float64, n), make([][]time.Duration, n)
}

func (w *world) clear() {
	for i, m := range w.models {
		w.sum[i] = Function{Name: m.name, Async: m.async, Saturated: true, Limit: m.limit, Timeout: m.timeout}
	}
	w.usage.cpu, w.usage.daemon, w.usage.queue, w.usage.at = 0, 0, 0, w.now.Seconds()
}

// apply applies the decision.
func (w *world) apply(s Settings, limits map[string]int) {
	before := w.set
	w.set, w.limits = s, limits
	for _, m := range w.models { // libraries read their share when they are loaded
		if m.inner > 0 && !m.ignores && before.Processes > 0 && int(w.cores)/s.Processes != int(w.cores)/before.Processes {
			w.procs = nil
		}
	}
	for len(w.procs) < s.Processes {
		p := &proc{ready: w.now + w.startUp}
		p.forget(len(w.models))
		w.procs = append(w.procs, p)
	}
	w.procs = w.procs[:s.Processes]
}

// play advances the time and returns the measurements.
func (w *world) play(d time.Duration) Sample {
	for end := w.now + d; w.now < end; w.now += step {
		w.step()
	}
	return w.sample()
}

//go:norace
func (w *world) step() {
	dt := step.Seconds()
	for i, m := range w.models {
		if m.arrivals > 0 {
			w.backlog[i] += w.poisson(m.arrivals * dt)
			if w.backlog[i] < 1 {
				w.sum[i].Saturated = false
			}
		}
	}
	// What each process could use of the cores.
	var ask float64
	asks := make([]float64, len(w.procs))
	for n, p := range w.procs {
		if w.now < p.ready {
			continue
		}
		w.fill(p)
		var gil, free float64
		for i, m := range w.models {
			if m.releases {
				free += p.demand(m, i) * w.threads(m)
			} else {
				gil += p.demand(m, i)
			}
		}
		asks[n] = math.Min(gil, 1) + free
		ask += asks[n]
		w.usage.queue += asks[n] * dt
	}
	room := math.Max(w.cores-w.daemon-w.others, 0.1*w.cores)
	share := math.Min(1, room/math.Max(ask, 1e-9))
	w.share = share
	var ended float64
	for n, p := range w.procs {
		if asks[n] > 0 {
			w.usage.queue -= asks[n] * share * dt
			ended += w.compute(p, share, dt)
		}
		if w.now >= p.ready {
			ended += w.wait(p, dt)
		}
	}
	w.daemon += 0.1 * (ended*w.overhead/dt - w.daemon)
	w.usage.daemon += w.daemon * dt
	w.leaked += w.leak * dt
}

// demand is the number of cores that the calls of a function could use in a step.
//
//go:norace
func (p *proc) demand(m model, i int) float64 {
	if m.wait == 0 {
		return p.on[i] // those that end make room for others at once
	}
	return math.Min(p.on[i], math.Max(p.on[i]-p.carry[i], 0)*m.cpu/step.Seconds())
}

// fill divides the room of a process among functions.
//
//go:norace
func (w *world) fill(p *proc) {
	for _, async := range []bool{false, true} {
		for room := w.room(p, async); room >= 1; room-- {
			var may []int
			for i, m := range w.models {
				if m.async == async && (m.arrivals == 0 || w.backlog[i] >= 1) && w.allows(p, i) {
					may = append(may, i)
				}
			}
			if len(may) == 0 {
				break
			}
			w.begin(p, may[w.random.IntN(len(may))])
		}
	}
}

// room is the number of further calls that a process takes.
//
//go:norace
func (w *world) room(p *proc, async bool) float64 {
	room := float64(w.set.Threads)
	if async {
		room = float64(w.set.Coroutines)
	}
	for i, m := range w.models {
		if m.async == async {
			room -= p.on[i] + p.off[i]
		}
	}
	return room
}

//go:norace
func (w *world) allows(p *proc, i int) bool {
	m := w.models[i]
	if limit, found := w.limits[m.name]; found && p.on[i]+p.off[i] >= float64(limit) {
		return false
	}
	if m.limit == 0 {
		return true
	}
	var all float64
	for _, p := range w.procs {
		all += p.on[i] + p.off[i]
	}
	return all < float64(m.limit)
}

//go:norace
func (w *world) begin(p *proc, i int) {
	if w.models[i].arrivals > 0 {
		w.backlog[i]--
	}
	p.on[i]++
	p.begins[i] = append(p.begins[i], w.now)
}

// compute divides the CPU time of a process among its calls.
//
//go:norace
func (w *world) compute(p *proc, share, dt float64) (ended float64) {
	var runnable, gil float64
	loop := 1.0 // the part of the time that the event loop is not blocked
	for i, m := range w.models {
		runnable += p.demand(m, i)
		if m.blocks && p.off[i] > 0 {
			loop = 0
		}
	}
	slow := 1 / (1 + w.convoy*math.Max(runnable-1, 0))
	for i, m := range w.models {
		if !m.releases && !(m.async && loop == 0) {
			gil += p.demand(m, i)
		}
	}
	for i, m := range w.models {
		if p.on[i] == 0 || m.async && loop == 0 {
			continue
		}
		got := share * slow * dt * math.Min(gil, 1) * p.demand(m, i) / math.Max(gil, 1e-9)
		if m.releases {
			got = share * slow * dt * p.demand(m, i) * w.threads(m)
		}
		w.usage.cpu += got / slow
		calls := got / w.cost(m)
		if m.wait > 0 { // no more than there are
			calls = math.Min(calls, p.on[i])
		}
		p.carry[i] += calls
		n := math.Floor(p.carry[i] + 1e-9)
		if m.wait > 0 {
			n = math.Min(n, p.on[i])
		}
		p.carry[i] = math.Max(p.carry[i]-n, 0)
		if m.wait > 0 {
			p.on[i] -= n
			p.off[i] += n
			continue
		}
		// Those that end make room for others within the step.
		for range int(n) {
			w.end(p, i)
			p.on[i]--
			ended++
			if (m.arrivals == 0 || w.backlog[i] >= 1) && w.room(p, m.async) >= 1 && w.allows(p, i) {
				w.begin(p, i)
			}
			if p.on[i] == 0 {
				break
			}
		}
	}
	return ended
}

// wait ends waiting calls.
//
//go:norace
func (w *world) wait(p *proc, dt float64) (ended float64) {
	for i, m := range w.models {
		if p.off[i] == 0 {
			continue
		}
		rate := p.off[i] / m.wait
		if m.parts > 0 {
			units := math.Min(executorThreads, p.off[i]*float64(m.parts))
			rate = units / (m.wait / float64(m.parts)) / float64(m.parts)
		}
		if m.blocks {
			rate = 1 / m.wait
		}
		if m.down > 0 {
			var all float64
			for _, q := range w.procs {
				all += q.off[i]
			}
			rate = math.Min(rate, m.down*p.off[i]/all)
		}
		n := math.Min(w.poisson(rate*dt), p.off[i])
		for range int(n) {
			w.end(p, i)
		}
		p.off[i] -= n
		ended += n
	}
	return ended
}

//go:norace
func (w *world) end(p *proc, i int) {
	m, f := w.models[i], &w.sum[i]
	wall := w.now + step - p.begins[i][0]
	thread := w.cost(m) / w.threads(m) // the CPU time of the call's thread
	own := time.Duration((thread + m.wait) * float64(time.Second))
	if wall < own || m.cpu+m.wait < step.Seconds() && p.on[i]+p.off[i] < 2 {
		wall = own
	}
	p.begins[i] = p.begins[i][1:]
	f.Done++
	f.AllWall += wall
	w.total[i]++
	if wall < 5*time.Millisecond && w.random.IntN(16) > 0 {
		return
	}
	f.Measured++
	f.Wall += wall
	cpu := time.Duration(thread * (0.95 + 0.1*w.random.Float64()) * float64(time.Second))
	if m.parts > 0 {
		cpu /= 3 // the rest is computed on the executor's threads
	}
	f.CPU += cpu
	w.examine(f, m, wall, cpu)
	switch {
	case !m.async:
		f.Held += wall
	case m.wait == 0 || m.blocks:
		f.Held += time.Duration((m.cpu + m.wait) * 1.02 * float64(time.Second))
	default:
		f.Held += time.Duration(float64(cpu) * 1.1)
	}
	if m.cpu > 5e-3 {
		f.Looks++
		if !m.releases {
			f.HeldGIL++
		}
	}
}

// examine adds the delays of a call that is not async: what exceeds its own time is a wait for a core,
// or for the GIL of its process, as the cores and the GIL are shared.
func (w *world) examine(f *Function, m model, wall, cpu time.Duration) {
	if !w.examines || m.async {
		return
	}
	extra := max(wall-cpu-time.Duration(m.wait*float64(time.Second)), 0)
	forCore := min(time.Duration((1/w.share-1)*float64(cpu)), extra)
	f.Examined.Wall += wall
	f.Examined.CPU += cpu
	f.Examined.Delayed += forCore
	f.Examined.Locked += extra - forCore
	f.Examined.LockedMost += min(2*(extra-forCore), wall-cpu-forCore)
}

func (w *world) sample() Sample {
	seconds := w.now.Seconds() - w.usage.at
	noisy := func(x float64) float64 { return x * (0.98 + 0.04*w.random.Float64()) }
	s := Sample{
		At: w.now, Settings: w.set, Cores: w.cores, Others: noisy(w.others), CPU: noisy(w.usage.cpu / seconds),
		Daemon: noisy(w.usage.daemon / seconds), RunQueue: w.usage.queue / seconds, MemoryLimit: w.limit,
	}
	memory := w.leaked
	for _, p := range w.procs {
		if w.now >= p.ready {
			s.Ready++
		}
		memory += w.base
		for i, m := range w.models {
			memory += m.memory * (p.on[i] + p.off[i])
		}
	}
	s.Memory = uint64(noisy(memory))
	for i := range w.models {
		for _, p := range w.procs {
			w.sum[i].InFlight += p.on[i] + p.off[i]
		}
	}
	s.Functions = append([]Function(nil), w.sum...)
	w.clear()
	return s
}

// poisson returns a random number with that mean.
//
//go:norace
func (w *world) poisson(mean float64) float64 {
	if mean > 30 {
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*w.random.NormFloat64()))
	}
	n, p := 0.0, math.Exp(-mean)
	for u := w.random.Float64(); u > p; n++ {
		u *= w.random.Float64()
	}
	return n
}
