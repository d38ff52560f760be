package profiles

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/instances"
)

// profileInstances profiles a function in instances, and adds up their profiles. An instance that
// ends meanwhile is noted. If none has a profile, the error of the first is returned.
func profileInstances(ctx context.Context, dataDir string, ids []int, name string, length time.Duration) (*api.Profile, error) {
	if len(ids) == 0 {
		return nil, errors.New("no instance is running; see drover explain")
	}
	answers, errs := make([]*api.Profile, len(ids)), make([]error, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() {
			client := admin.NewSocketClient(instances.InstanceDir(dataDir, id)).WithoutTimeout() // ctx bounds it
			var own api.Profile
			if errs[i] = client.PostJSON(ctx, api.ProfilePath(name, length), nil, &own); errs[i] == nil {
				answers[i] = &own
			}
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := &api.Profile{Function: name, Seconds: length.Seconds()}
	var parts []*profile.Profile
	for i, own := range answers {
		if own == nil {
			out.Notes = append(out.Notes, fmt.Sprintf("instance %d has no samples: %v", ids[i], errs[i]))
			continue
		}
		out.Kind = own.Kind
		out.Calls, out.Samples, out.Workers = out.Calls+own.Calls, out.Samples+own.Samples, out.Workers+own.Workers
		for _, note := range own.Notes {
			out.Notes = append(out.Notes, fmt.Sprintf("instance %d: %s", ids[i], note))
		}
		if len(own.Pprof) > 0 {
			part, err := profile.ParseData(own.Pprof)
			if err != nil {
				return nil, fmt.Errorf("reading the profile of instance %d: %w", ids[i], err)
			}
			parts = append(parts, part)
		}
	}
	if !slices.ContainsFunc(answers, func(own *api.Profile) bool { return own != nil }) {
		return nil, fmt.Errorf("instance %d: %w", ids[0], errs[0])
	}
	if len(parts) == 0 {
		return out, nil
	}
	sum, err := profile.Merge(parts)
	if err != nil {
		return nil, fmt.Errorf("adding up the profiles of the instances: %w", err)
	}
	sum.DurationNanos = length.Nanoseconds() // they ran at the same time
	return out, encode(out, sum)
}
