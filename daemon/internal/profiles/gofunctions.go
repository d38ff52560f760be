package profiles

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/apps/labels"
)

// marker is the prefix of the functions that call a Go function with its labels.
const marker = "github.com/drover-run/drover/daemon/internal/apps/labels."

// profileGo profiles a Go function: it profiles the CPU of this process, and keeps the samples with the
// function's label. Calls that began before have none.
func profileGo(ctx context.Context, f *apps.Function, length time.Duration) (*api.Profile, error) {
	var text bytes.Buffer
	f.Labels.Turn(true)
	defer f.Labels.Turn(false)
	if err := pprof.StartCPUProfile(&text); err != nil {
		return nil, fmt.Errorf("%w by this program, or by a request for /debug/pprof/profile; try again after it", err)
	}
	limit := time.NewTimer(length)
	defer limit.Stop()
	select {
	case <-limit.C:
	case <-ctx.Done():
	}
	pprof.StopCPUProfile()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := profile.ParseData(text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("reading the profile: %w", err)
	}
	p = keepFunction(p, f.Name)
	out := &api.Profile{Kind: api.ProfileCPU}
	for _, s := range p.Sample {
		out.Samples += s.Value[0]
	}
	return out, encode(out, p)
}

// keepFunction removes the samples without the label of a function, and the frames below the function.
func keepFunction(p *profile.Profile, function string) *profile.Profile {
	p.Sample = slices.DeleteFunc(p.Sample, func(s *profile.Sample) bool {
		return !slices.Contains(s.Label[labels.Key], function)
	})
	p.RemoveLabel(labels.Key)
	for _, s := range p.Sample {
		if at := slices.IndexFunc(s.Location, isMarker); at > 0 {
			s.Location = s.Location[:at]
		}
	}
	return p.Compact() // removes what no sample uses
}

// isMarker reports whether a location is in the functions that call the function.
func isMarker(l *profile.Location) bool {
	return slices.ContainsFunc(l.Line, func(line profile.Line) bool {
		return line.Function != nil && strings.HasPrefix(line.Function.Name, marker)
	})
}
