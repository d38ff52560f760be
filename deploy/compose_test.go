package deploy

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// The compose file matches the specification's schema, and each service has only the rights that it
// needs.
func TestCompose(t *testing.T) {
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: ".", ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml"}}, Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := project.ServiceNames(), []string{"app", "azurite", "drover", "nats"}; !slices.Equal(got, want) {
		t.Fatalf("the services are %v, want %v", got, want)
	}
	for name, s := range project.Services {
		switch {
		case !s.ReadOnly:
			t.Errorf("%s may write to its root", name)
		case !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged:
			t.Errorf("%s has capabilities", name)
		case !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}):
			t.Errorf("%s has %v", name, s.SecurityOpt)
		case len(s.Ports) > 0:
			t.Errorf("%s is reached from outside: %v", name, s.Ports)
		}
		if name != "drover" { // whose image has both
			if s.User == "" || strings.HasPrefix(s.User, "0") {
				t.Errorf("%s is root", name)
			}
			if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 {
				t.Errorf("%s has no health check", name)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s has %+v: %v", name, v, err)
				}
			}
		}
	}
	s := project.Services["drover"]
	if s.StopGracePeriod == nil {
		t.Fatal("drover has no stop_grace_period")
	}
	fits(t, load(t, "compose/drover.yaml", ""), time.Duration(*s.StopGracePeriod))
	for _, name := range []string{"nats", "azurite", "app"} {
		if d := s.DependsOn[name]; d.Condition != types.ServiceConditionHealthy {
			t.Errorf("drover does not wait for %s", name)
		}
	}
	if s.Build == nil || s.Build.Target != "drover" {
		t.Errorf("drover is built as %+v", s.Build)
	}
}
