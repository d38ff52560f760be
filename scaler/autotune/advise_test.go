package autotune

import "testing"

func TestAdvise(t *testing.T) {
	free := Bounds{Least: settings(1, 1, 1), Most: settings(16, 128, 1000)}
	cpu := map[string]Kind{"f": {Kind: KindCPU, CPU: 1, Sure: 1}}
	block := map[string]Kind{"f": {Kind: KindBlocking, Sure: 1}}
	sync := []Function{{Name: "f", Saturated: true}}
	for name, c := range map[string]struct {
		explicit Settings
		kinds    map[string]Kind
		cpu      float64
		want     string
	}{
		"nothing known":      {settings(1, 1, 1), nil, 1, ""},
		"the same":           {settings(2, 1, 1), cpu, 2, ""},
		"Azure's for CPU":    {settings(1, 6, 1), cpu, 1, "auto would have about 2 processes × 1 thread × 1 coroutine, instead of 1 process × 6 threads × 1 coroutine: f (cpu)"},
		"Azure's for waits":  {settings(1, 6, 1), block, 0.1, "auto would have about 2 processes × 48 threads × 1 coroutine, and would try more, instead of 1 process × 6 threads × 1 coroutine: f (blocking)"},
		"enough for waits":   {settings(2, 64, 1), block, 1.9, ""},
		"too many processes": {settings(8, 1, 1), cpu, 2, "auto would have about 2 processes × 1 thread × 1 coroutine, instead of 8 processes × 1 thread × 1 coroutine: f (cpu)"},
	} {
		if got := Advise(c.explicit, free, c.kinds, Sample{Cores: 2, CPU: c.cpu, Functions: sync}); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
