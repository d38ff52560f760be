package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/buildinfo"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/daemon/internal/telemetry"
	"github.com/drover-run/drover/daemon/internal/tlsconfig"
)

// openTraces starts to send spans, as configured; nil if nothing is traced.
func openTraces(ctx context.Context, cfg configs.Traces, log *slog.Logger) (*telemetry.Traces, error) {
	if cfg.URL == "" {
		return nil, nil
	}
	tls, err := tlsconfig.ForClient(cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	headers := make(map[string]string)
	for name, value := range cfg.Headers {
		headers[name] = string(value)
	}
	traces, err := telemetry.OpenTraces(ctx, telemetry.TracesConfig{
		URL: cfg.URL, Headers: headers, TLS: tls, Sample: *cfg.Sample,
		Service: cfg.ServiceName, Version: buildinfo.Version(), Resource: cfg.Resource,
	}, log)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	return traces, nil
}

// newSpans returns the spans of a function; nil if nothing is traced.
func newSpans(traces *telemetry.Traces, function string, settings configs.Function) *dispatch.Spans {
	if traces == nil {
		return nil
	}
	return dispatch.NewSpans(traces.Tracer(), traces.SampleRate(), function, sources.TraitsOf(settings.Trigger).Entity)
}
