package traces

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/configs/decode"
	"github.com/drover-run/drover/configs/problems"
)

// parse completes settings that are written in braces. env has variables as in NAME=value.
func parse(text string, env ...string) (Settings, []string, error) {
	var file struct {
		Traces Settings `yaml:"traces"`
	}
	s := problems.New("x.yaml", []byte("traces: "+text+"\n"), ".", func(name string) (string, bool) {
		for _, pair := range env {
			if n, value, _ := strings.Cut(pair, "="); n == name {
				return value, true
			}
		}
		return "", false
	})
	decode.Document(s, &file, nil)
	if err := s.Err(); err != nil {
		return file.Traces, nil, err
	}
	file.Traces.Complete(s, "traces")
	return file.Traces, s.Warnings, s.Err()
}

// TestTraces checks the results of the file and of OpenTelemetry's variables.
func TestTraces(t *testing.T) {
	const collector = "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel:4318"
	for _, test := range []struct {
		name, traces string
		env          []string
		want         string // URL, sample, service and headers; empty: nothing is traced
		warning      string
	}{
		{name: "off by default"},
		{name: "the file", traces: "{endpoint: 'http://c:4318'}", want: "http://c:4318/v1/traces 1 drover "},
		{name: "the file's path", traces: "{endpoint: 'https://c/otlp/', sample: 0, service_name: s, headers: {A: b}}", want: "https://c/otlp/v1/traces 0 s A=b"},
		{name: "the whole URL", traces: "{endpoint: 'https://c/v1/traces'}", want: "https://c/v1/traces 1 drover "},
		{name: "the environment", env: []string{collector}, want: "http://otel:4318/v1/traces 1 drover "},
		{name: "the file before the environment", traces: "{endpoint: 'http://c', sample: 0.5, service_name: s, headers: {A: b}}",
			env:  []string{collector, "OTEL_SERVICE_NAME=e", "OTEL_TRACES_SAMPLER_ARG=0.1", "OTEL_EXPORTER_OTLP_HEADERS=C=d", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
			want: "http://c/v1/traces 0.5 s A=b"},
		{name: "all by the environment",
			env:  []string{collector, "OTEL_SERVICE_NAME=e", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.1", "OTEL_EXPORTER_OTLP_HEADERS=C=d, E=f%20g"},
			want: "http://otel:4318/v1/traces 0.1 e C=d,E=f g"},
		{name: "for traces alone", env: []string{collector, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://t:1/x", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=C=d", "OTEL_EXPORTER_OTLP_HEADERS=C=no"},
			want: "http://t:1/x 1 drover C=d"},
		{name: "the service among the attributes", env: []string{collector, "OTEL_RESOURCE_ATTRIBUTES=service.name=a,k=v"}, want: "http://otel:4318/v1/traces 1 a "},
		{name: "none but those with a parent", env: []string{collector, "OTEL_TRACES_SAMPLER=parentbased_always_off"}, want: "http://otel:4318/v1/traces 0 drover "},
		{name: "off in the file", traces: "{endpoint: off}", env: []string{collector}},
		{name: "disabled", env: []string{collector, "OTEL_SDK_DISABLED=true"}},
		{name: "no exporter", env: []string{collector, "OTEL_TRACES_EXPORTER=none"}},
		{name: "another protocol", env: []string{collector, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, warning: `OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"`},
		{name: "settings without an endpoint", traces: "{sample: 0.5}", warning: "nothing is traced without an endpoint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr, warnings, err := parse(test.traces, test.env...)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if tr.URL != "" {
				var headers []string
				for _, name := range slices.Sorted(maps.Keys(tr.Headers)) {
					headers = append(headers, name+"="+string(tr.Headers[name]))
				}
				got = fmt.Sprint(tr.URL, " ", *tr.Sample, " ", tr.ServiceName, " ", strings.Join(headers, ","))
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if (test.warning == "") != (len(warnings) == 0) || !strings.Contains(strings.Join(warnings, ""), test.warning) {
				t.Errorf("the warnings are %q, want %q", warnings, test.warning)
			}
		})
	}
	for variable, want := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=joe:s3cret@otel": "the environment's OTEL_EXPORTER_OTLP_ENDPOINT: this is not the URL of a collector",
		"OTEL_TRACES_SAMPLER_ARG=2":                   `the environment's OTEL_TRACES_SAMPLER_ARG is "2"; it must be a number from 0 to 1`,
		"OTEL_TRACES_SAMPLER=xray":                    `the environment's OTEL_TRACES_SAMPLER is "xray"`,
		"OTEL_EXPORTER_OTLP_HEADERS=s3cret":           "the environment's OTEL_EXPORTER_OTLP_HEADERS is not of the form NAME=VALUE",
		"OTEL_EXPORTER_OTLP_HEADERS=a b=s3cret":       "traces.headers.a b: not a valid header",
	} {
		if _, _, err := parse("", variable, collector); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
