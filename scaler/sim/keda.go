package sim

import (
	"math"
	"time"
)

// KEDA is a KEDA ScaledObject with its HorizontalPodAutoscaler, both with their defaults. The
// numbers are from KEDA's documentation of ScaledObjects (pollingInterval 30 s, cooldownPeriod
// 300 s) and of its azure-servicebus and azure-queue scalers (messageCount and queueLength 5;
// the count includes locked messages), and from Kubernetes' documentation of the HPA (a sync
// every 15 s, tolerance 0.1, scale-out by at most 4 pods or 100 % in 15 s, scale-in after a
// stabilisation of 300 s). Its maxReplicaCount, 100, is the bound of all models.
func KEDA() Policy {
	return Policy{Name: "KEDA with HPA", New: func(m Model) Autoscaler {
		return &keda{min: m.Min, pods: m.Min}
	}}
}

const (
	kedaPoll      = 30 * time.Second
	kedaCooldown  = 300 * time.Second
	kedaPerPod    = 5
	hpaSync       = 15 * time.Second
	hpaTolerance  = 0.1
	hpaStabilise  = 300 * time.Second
	hpaMorePods   = 4
	hpaMoreFactor = 2
)

type keda struct {
	min    int
	pods   int
	active time.Duration
	recent []recommendation
}

type recommendation struct {
	at   time.Duration
	pods int
}

func (k *keda) DecideEvery() time.Duration { return hpaSync }

func (k *keda) DecideUnits(v View) int {
	waiting := v.Backlog + v.InFlight
	if v.At%kedaPoll == 0 { // the operator: between zero and one
		switch {
		case waiting > 0:
			k.active = v.At
			k.pods = max(k.pods, 1)
		case k.pods > 0 && k.min == 0 && v.At-k.active >= kedaCooldown:
			k.pods, k.recent = 0, nil
		}
	}
	if k.pods == 0 {
		return 0
	}
	// The autoscaler: between one and many.
	wanted := k.pods
	if ratio := float64(waiting) / (kedaPerPod * float64(k.pods)); math.Abs(ratio-1) > hpaTolerance {
		wanted = int(math.Ceil(float64(waiting) / kedaPerPod))
	}
	wanted = max(wanted, max(k.min, 1))
	k.recent = append(k.recent, recommendation{v.At, wanted})
	for k.recent[0].at < v.At-hpaStabilise {
		k.recent = k.recent[1:]
	}
	if wanted < k.pods {
		for _, r := range k.recent {
			wanted = max(wanted, min(r.pods, k.pods))
		}
	}
	k.pods = min(wanted, max(k.pods+hpaMorePods, k.pods*hpaMoreFactor))
	return k.pods
}
