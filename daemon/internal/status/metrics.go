package status

import (
	"github.com/prometheus/client_golang/prometheus"
)

// descriptions holds the descriptions of a collector.
type descriptions []*prometheus.Desc

// addMetric adds a description, with its labels.
func (d *descriptions) addMetric(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("drover_"+name, help, labels, nil)
	*d = append(*d, desc)
	return desc
}

// Describe implements prometheus.Collector.
func (d descriptions) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range d {
		to <- desc
	}
}

// metricSink receives metrics.
type metricSink chan<- prometheus.Metric

func (to metricSink) sendGauge(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (to metricSink) sendCounter(d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func boolValue(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
