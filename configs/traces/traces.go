// Package traces has the settings of OpenTelemetry traces, and completes them from the variables of
// OpenTelemetry.
package traces

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
)

// Settings has the destination of spans, and the fraction of traced messages.
type Settings struct {
	Endpoint    string                   `yaml:"endpoint" desc:"OpenTelemetry collector that accepts OTLP over HTTP, such as http://127.0.0.1:4318; by default OTEL_EXPORTER_OTLP_ENDPOINT, else nothing is traced; off disables traces even if that is set"`
	Sample      *float64                 `yaml:"sample" min:"0" max:"1" desc:"fraction of the messages without a trace context that are traced; by default OTEL_TRACES_SAMPLER_ARG, else 1; a message with a trace context follows its sampling decision"`
	ServiceName string                   `yaml:"service_name" desc:"service name in traces; by default OTEL_SERVICE_NAME, else drover"`
	Headers     map[string]values.Secret `yaml:"headers" desc:"headers for the collector, such as Authorization; usually ${NAME} or file:PATH; by default OTEL_EXPORTER_OTLP_HEADERS"`
	TLS         *values.TLS              `yaml:"tls" desc:"https: TLS settings of the connection; by default the system's root certificates are used"`

	// Set by Complete: URL is the destination of spans, empty without traces; From is the origin of
	// URL; Resource has the other attributes of the daemon from the environment.
	URL      string            `yaml:"-"`
	From     string            `yaml:"-"`
	Resource map[string]string `yaml:"-"`
}

// The supported variables of OpenTelemetry.
const (
	otelDisabled        = "OTEL_SDK_DISABLED"
	otelExporter        = "OTEL_TRACES_EXPORTER"
	otelProtocol        = "OTEL_EXPORTER_OTLP_PROTOCOL"
	otelTracesProtocol  = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	otelEndpoint        = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otelTracesEndpoint  = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	otelHeaders         = "OTEL_EXPORTER_OTLP_HEADERS"
	otelTracesHeaders   = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
	otelService         = "OTEL_SERVICE_NAME"
	otelResource        = "OTEL_RESOURCE_ATTRIBUTES"
	otelSampler         = "OTEL_TRACES_SAMPLER"
	otelSamplerArgument = "OTEL_TRACES_SAMPLER_ARG"
)

// tracesPath is the path of a collector for spans, below its address.
const tracesPath = "/v1/traces"

// serviceName is the default service name.
const serviceName = "drover"

// firstVariable returns the first variable of the environment that is not empty, of names in order.
func firstVariable(x *problems.Source, names ...string) (value, name string) {
	for _, name := range names {
		if value, _ := x.Lookup(name); strings.TrimSpace(value) != "" {
			return strings.TrimSpace(value), name
		}
	}
	return "", ""
}

// Complete sets the values that come from the environment, and checks all. path is the path of the
// settings.
func (t *Settings) Complete(x *problems.Source, path string) {
	switch {
	case t.Endpoint == "off":
		return
	case t.Endpoint != "":
		t.URL, t.From = collectorURL(x, path+".endpoint", "", t.Endpoint, true), path+".endpoint"
	default:
		t.fromEnvironment(x, path)
	}
	if t.URL == "" {
		t.warnUnused(x)
		return
	}
	t.completeHeaders(x, path+".headers")
	t.completeSample(x, path+".sample")
	if text, _ := firstVariable(x, otelResource); text != "" {
		t.Resource = parsePairs(x, "OTEL_RESOURCE_ATTRIBUTES", text)
	}
	if t.ServiceName == "" {
		t.ServiceName, _ = firstVariable(x, otelService)
	}
	if t.ServiceName == "" {
		t.ServiceName = t.Resource["service.name"]
	}
	if t.ServiceName == "" {
		t.ServiceName = serviceName
	}
	if tls := t.TLS; tls != nil {
		if !strings.HasPrefix(t.URL, "https:") && (tls.CA != "" || tls.Cert != "") {
			x.Wrong(path+".tls", "it requires an https endpoint")
		}
		if (tls.Cert == "") != (tls.Key == "") {
			x.Wrong(path+".tls", "set both cert and key")
		}
	}
}

// warnUnused warns of settings without an effect.
func (t *Settings) warnUnused(x *problems.Source) {
	if len(x.Problems) == 0 && (t.Sample != nil || t.ServiceName != "" || len(t.Headers) > 0 || t.TLS != nil) {
		x.Warn("traces: nothing is traced without an endpoint, such as http://127.0.0.1:4318")
	}
}

// fromEnvironment takes the collector from the environment if the file names none.
func (t *Settings) fromEnvironment(x *problems.Source, path string) {
	if text, _ := firstVariable(x, otelDisabled); strings.EqualFold(text, "true") {
		return
	}
	if text, _ := firstVariable(x, otelExporter); text == "none" {
		return
	}
	text, name := firstVariable(x, otelTracesEndpoint, otelEndpoint)
	if text == "" {
		return
	}
	if protocol, from := firstVariable(x, otelTracesProtocol, otelProtocol); protocol != "" && protocol != "http/protobuf" {
		x.Warn("nothing is traced: the environment's %s is %q, but drover uses http/protobuf; set traces.endpoint to a collector for that", from, protocol)
		return
	}
	t.URL, t.From = collectorURL(x, path+".endpoint", name, text, name == otelEndpoint), name
}

// collectorURL returns the URL for spans. below reports that text is the collector's address;
// otherwise it is the URL itself.
func collectorURL(x *problems.Source, path, variable, text string, below bool) string {
	what := ""
	if variable != "" {
		what = "the environment's " + variable + ": "
	}
	u, err := url.Parse(text)
	if err == nil && u.User != nil {
		x.Secrets = append(x.Secrets, u.User.String())
		x.Wrong(path, "%sthe URL must not contain a user or password; use headers", what)
		return ""
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		x.Wrong(path, "%sthis is not the URL of a collector; write http://127.0.0.1:4318, for example", what)
		return ""
	}
	if u.Path = strings.TrimSuffix(u.Path, "/"); below && !strings.HasSuffix(u.Path, tracesPath) {
		u.Path += tracesPath
	}
	return u.String()
}

func (t *Settings) completeHeaders(x *problems.Source, path string) {
	if len(t.Headers) == 0 {
		if text, name := firstVariable(x, otelTracesHeaders, otelHeaders); text != "" {
			x.Secrets = append(x.Secrets, text)
			t.Headers = make(map[string]values.Secret)
			for key, value := range parsePairs(x, name, text) {
				t.Headers[key] = values.Secret(value)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		if !values.ValidHeader(name, t.Headers[name]) {
			x.Wrong(path+"."+name, "not a valid header; use letters, digits and hyphens, and a value of one line")
		}
	}
}

// parsePairs parses a variable of names and values, as in a=1,b=2, in which values may contain %XX.
func parsePairs(x *problems.Source, variable, text string) map[string]string {
	out := make(map[string]string)
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, found := strings.Cut(part, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !found || name == "" || err != nil {
			x.Wrong("traces", "the environment's %s is not of the form NAME=VALUE,NAME=VALUE", variable)
			return nil
		}
		out[name] = value
	}
	return out
}

// completeSample sets the fraction of traced messages from the file, else from the environment.
func (t *Settings) completeSample(x *problems.Source, path string) {
	if t.Sample != nil {
		return
	}
	all, none := 1.0, 0.0
	t.Sample = &all
	sampler, _ := firstVariable(x, otelSampler)
	ratio := []string{"", "traceidratio", "parentbased_traceidratio"}
	switch {
	case sampler == "always_on" || sampler == "parentbased_always_on":
	case sampler == "always_off" || sampler == "parentbased_always_off":
		t.Sample = &none
	case slices.Contains(ratio, sampler):
		text, _ := firstVariable(x, otelSamplerArgument)
		if text == "" {
			return
		}
		part, err := strconv.ParseFloat(text, 64)
		if err != nil || !(part >= 0 && part <= 1) {
			x.Wrong(path, "the environment's %s is %q; it must be a number from 0 to 1, or unset", otelSamplerArgument, text)
			return
		}
		t.Sample = &part
	default:
		x.Wrong(path, "the environment's %s is %q; use parentbased_traceidratio, parentbased_always_on or parentbased_always_off; or set sample", otelSampler, sampler)
	}
}
