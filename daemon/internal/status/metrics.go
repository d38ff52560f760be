package status

import (
	"github.com/prometheus/client_golang/prometheus"
)

// described holds the descriptions of a collector.
type described []*prometheus.Desc

// addMetric adds a description, with its labels.
func (d *described) addMetric(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("drover_"+name, help, labels, nil)
	*d = append(*d, desc)
	return desc
}

// Describe implements prometheus.Collector.
func (d described) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range d {
		to <- desc
	}
}

// emit receives metrics.
type emit chan<- prometheus.Metric

func (to emit) sendGauge(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (to emit) sendCounter(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func boolValue(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
