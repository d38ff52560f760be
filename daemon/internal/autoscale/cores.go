package autoscale

import "github.com/drover-run/drover/daemon/internal/apps"

// logCores logs each function whose calls use several cores, once; mu is held.
func (t *tuner) logCores() {
	share := t.pool.Settings().CoreShare
	for name, k := range t.controller.Kinds() {
		if k.Cores == 0 || t.coresLogged[name] {
			continue
		}
		if t.coresLogged == nil {
			t.coresLogged = make(map[string]bool)
		}
		t.coresLogged[name] = true
		t.log.Info("a call of a function uses several cores: it computes with threads of its own", "function", name,
			"cores_per_call", float64(int(10*k.Cores+0.5))/10, "core_share", share, "more", apps.CoresText(k, share))
	}
}
