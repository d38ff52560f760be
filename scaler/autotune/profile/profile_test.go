package profile

import (
	"testing"
	"time"

	"github.com/drover-run/drover/scaler/autotune/pool"
)

// settings returns settings with these numbers.
func settings(processes, threads, coroutines int) pool.Settings {
	return pool.Settings{Processes: processes, Threads: threads, Coroutines: coroutines}
}

// quiet are the conditions of a sample in which nothing changed and nobody else used the machine.
var quiet = Conditions{Seconds: 0.25, Steady: true}

func TestKinds(t *testing.T) {
	const ms = time.Millisecond
	one := settings(2, 1, 1)
	many := settings(2, 16, 100)
	// call is n calls with these mean times and this many in flight.
	call := func(async bool, n int64, wall, cpu, held time.Duration, inFlight float64) pool.Function {
		return pool.Function{Name: "f", Async: async, Done: n, Measured: n, Wall: time.Duration(n) * wall, AllWall: time.Duration(n) * wall,
			CPU: time.Duration(n) * cpu, Held: time.Duration(n) * held, InFlight: inFlight, Saturated: true}
	}
	looked := func(f pool.Function, looks, held int64) pool.Function {
		f.Looks, f.HeldGIL = looks, held
		return f
	}
	for name, c := range map[string]struct {
		set  pool.Settings
		cpu  float64 // cores of the pool
		f    pool.Function
		want Kind // its Sure is the least
	}{
		"computes":                       {one, 2, call(false, 25, 20*ms, 20*ms, 20*ms, 2), Kind{Kind: KindCPU, Sure: 0.5}},
		"computes without the GIL":       {one, 2, looked(call(false, 25, 20*ms, 19*ms, 20*ms, 2), 20, 1), Kind{Kind: KindCPU, ReleasesGIL: true, Sure: 0.5}},
		"computes with the GIL":          {one, 2, looked(call(false, 25, 20*ms, 19*ms, 20*ms, 2), 20, 20), Kind{Kind: KindCPU, Sure: 0.5}},
		"too few looks":                  {one, 2, looked(call(false, 25, 20*ms, 19*ms, 20*ms, 2), 1, 0), Kind{Kind: KindCPU, Sure: 0.5}},
		"more than a core in a worker":   {many, 3.4, call(false, 170, 20*ms, 15*ms, 20*ms, 4), Kind{Kind: KindCPU, ReleasesGIL: true, Sure: 0.2}},
		"blocks":                         {one, 0.02, call(false, 5, 100*ms, ms/5, 100*ms, 2), Kind{Kind: KindBlocking, Sure: 0.5}},
		"blocks, many of them":           {many, 0.1, call(false, 80, 100*ms, ms/5, 100*ms, 32), Kind{Kind: KindBlocking, Sure: 0.5}},
		"mixed":                          {one, 0.6, call(false, 25, 20*ms, 6*ms, 20*ms, 2), Kind{Kind: KindMixed, Sure: 0.5}},
		"computes in a crowd":            {many, 1.98, call(false, 25, 320*ms, 20*ms, 320*ms, 32), Kind{Kind: KindCPU, Sure: 0.2}},
		"awaits":                         {one, 0.01, call(true, 5, 100*ms, ms/50, ms/40, 2), Kind{Kind: KindAsync, Sure: 0.5}},
		"awaits, many of them":           {many, 0.1, call(true, 500, 100*ms, ms/50, ms/40, 200), Kind{Kind: KindAsync, Sure: 0.5}},
		"async and never awaits":         {one, 2, call(true, 25, 20*ms, 20*ms, 20*ms, 2), Kind{Kind: KindCPU, NeverAwaits: true, BlocksLoop: true, Sure: 0.5}},
		"async and sleeps with the loop": {one, 0.02, call(true, 25, 20*ms, ms/10, 20*ms, 2), Kind{Kind: KindBlocking, NeverAwaits: true, BlocksLoop: true, Sure: 0.5}},
		"awaits, and blocks in between":  {one, 0.02, call(true, 10, 50*ms, ms/10, 20*ms, 2), Kind{Kind: KindAsync, BlocksLoop: true, Sure: 0.5}},
		"computes and awaits":            {one, 0.8, call(true, 10, 50*ms, 20*ms, 21*ms, 2), Kind{Kind: KindMixed, Sure: 0.5}},
	} {
		n := Profiles{}
		for i := range 5 {
			n.See(pool.Sample{At: time.Duration(i) * time.Second / 4, Settings: c.set, Ready: 2, Cores: 4, CPU: c.cpu, Functions: []pool.Function{c.f}}, quiet)
		}
		got := n["f"].kind
		if got.Kind != c.want.Kind || got.ReleasesGIL != c.want.ReleasesGIL || got.NeverAwaits != c.want.NeverAwaits || got.BlocksLoop != c.want.BlocksLoop || got.Sure < c.want.Sure {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// The kind of a call that does not end is estimated from the CPU use of the pool.
func TestKindOfWhatDoesNotEnd(t *testing.T) {
	n := Profiles{}
	for i := range 10 {
		n.See(pool.Sample{At: time.Duration(i) * time.Second / 2, Settings: settings(2, 1, 1), Ready: 2, Cores: 2, CPU: 0.01,
			Functions: []pool.Function{{Name: "f", InFlight: 2}}}, quiet)
	}
	if k := n.Of("f"); k.Kind != KindBlocking {
		t.Errorf("got %+v", k)
	}
}

// A measurement without contention outweighs one with it, and one outlier does not change the kind.
func TestKindIsKept(t *testing.T) {
	const ms = time.Millisecond
	see := func(n Profiles, set pool.Settings, cpu float64, wall, own time.Duration, inFlight float64) {
		n.See(pool.Sample{Settings: set, Ready: 2, Cores: 2, CPU: cpu, Functions: []pool.Function{
			{Name: "f", Done: 10, Measured: 10, Wall: 10 * wall, AllWall: 10 * wall, CPU: 10 * own, Held: 10 * wall, InFlight: inFlight}}}, quiet)
	}
	n := Profiles{}
	for range 4 {
		see(n, settings(2, 1, 1), 2, 20*ms, 20*ms, 2)
	}
	for range 100 {
		see(n, settings(2, 16, 1), 2, 320*ms, 20*ms, 32)
	}
	if k := n.Of("f"); k.Kind != KindCPU || k.CPU < 0.9 {
		t.Errorf("in a crowd it became %+v", k)
	}
	see(n, settings(2, 1, 1), 0.01, 100*ms, ms/5, 2)
	if k := n.Of("f"); k.Kind != KindCPU {
		t.Errorf("after one odd sample it is %+v", k)
	}
	for range 5 {
		see(n, settings(2, 1, 1), 0.01, 100*ms, ms/5, 2)
	}
	if k := n.Of("f"); k.Kind != KindBlocking {
		t.Errorf("after some it is %+v", k)
	}
}

func TestTable(t *testing.T) {
	kinds := map[string]Kind{
		"cpu":   {Kind: KindCPU, CPU: 1, Sure: 1},
		"block": {Kind: KindBlocking, Sure: 1},
		"mixed": {Kind: KindMixed, CPU: 0.3, Sure: 1},
		"free":  {Kind: KindCPU, CPU: 1, ReleasesGIL: true, Sure: 1},
		"await": {Kind: KindAsync, Sure: 1},
		"hog":   {Kind: KindCPU, CPU: 1, NeverAwaits: true, Sure: 1},
	}
	n := Profiles{}
	for name, k := range kinds {
		n[name] = &character{kind: k, cpu: 20e-3}
	}
	f := func(names ...string) (out []pool.Function) {
		for _, name := range names {
			out = append(out, pool.Function{Name: name, Async: name == "await" || name == "hog"})
		}
		return out
	}
	for name, c := range map[string]struct {
		functions []pool.Function
		cores     float64
		most      int // processes
		want      pool.Settings
		limits    string
	}{
		"unknown":              {f("new"), 2, 16, settings(2, 1, 1), ""},
		"CPU":                  {f("cpu"), 2, 16, settings(2, 1, 1), ""},
		"half a core":          {f("cpu"), 0.5, 16, settings(1, 1, 1), ""},
		"a core and a half":    {f("cpu"), 1.5, 16, settings(2, 1, 1), ""},
		"blocking":             {f("block"), 2, 16, settings(2, 6, 1), ""},
		"mixed":                {f("mixed"), 2, 16, settings(2, 4, 1), ""},
		"GIL free":             {f("free"), 2, 16, settings(2, 1, 1), ""},
		"GIL free, one worker": {f("free"), 2, 1, settings(1, 2, 1), ""},
		"async":                {f("await"), 2, 16, settings(2, 1, 100), ""},
		"async hog":            {f("hog"), 2, 16, settings(2, 1, 2), ""},
		"CPU and blocking":     {f("cpu", "block"), 2, 16, settings(2, 6, 1), "cpu"},
		"CPU, blocking, new":   {f("cpu", "block", "new"), 2, 16, settings(2, 6, 1), "cpu new"},
		"hog and async":        {f("hog", "await"), 2, 16, settings(2, 1, 100), "hog"},
		"CPU and async":        {f("cpu", "await"), 2, 16, settings(2, 1, 100), ""},
	} {
		b := pool.Bounds{Least: settings(1, 1, 1), Most: settings(c.most, 128, 1000)}
		got := n.FirstSettings(c.functions, c.cores, b)
		if got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		var limits string
		for _, f := range c.functions {
			if l, found := n.Limits(c.functions, c.cores, got)[f.Name]; found {
				if limits != "" {
					limits += " "
				}
				if limits += f.Name; l != 1 {
					t.Errorf("%s: %s is limited to %d", name, f.Name, l)
				}
			}
		}
		if limits != c.limits {
			t.Errorf("%s: limited are %q, want %q", name, limits, c.limits)
		}
	}
}

// A function that may compute is limited only while another function needs the slots. On its own it uses
// all of them.
func TestLimitsOfAFunctionThatMayCompute(t *testing.T) {
	n := Profiles{}
	n.Recall("doubtful", Kind{Kind: KindMixed, CPU: 0.4, Waits: 0.6, Sure: 0.45})
	n.Recall("waits", Kind{Kind: KindAsync, Waits: 1, Sure: 1})
	doubtful := pool.Function{Name: "doubtful", Async: true, Done: 1000, InFlight: 60, Saturated: true}
	for name, c := range map[string]struct {
		others []pool.Function
		want   int // 0: no limit
	}{
		"alone":                         {nil, 0},
		"beside an idle one":            {[]pool.Function{{Name: "waits", Async: true}}, 0},
		"beside an active one":          {[]pool.Function{{Name: "waits", Async: true, InFlight: 3}}, 3},
		"beside an active one, of sync": {[]pool.Function{{Name: "waits", InFlight: 3}}, 0},
	} {
		if got := n.Limits(append(c.others, doubtful), 2, settings(1, 4, 100))["doubtful"]; got != c.want {
			t.Errorf("%s: the limit is %d, want %d", name, got, c.want)
		}
	}
}
