package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// commandOutput runs a command line and returns its status and its output.
func commandOutput(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status = Command(t.Context(), args, &IO{
		In: strings.NewReader(""), Out: &stdout, Err: &stderr,
		Env: func(string) (string, bool) { return "", false }, Environ: func() []string { return nil },
	})
	return status, stdout.String(), stderr.String()
}

func TestScaleSimulate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, out, errs := commandOutput(t, "scale", "simulate", "--trace", "slow starters", "--plot", filepath.Join(dir, "plots"), "--write", dir)
	if status != ExitOK {
		t.Fatalf("status %d\n%s", status, errs)
	}
	for _, part := range []string{"slow starters", "clairvoyant", "drover", "KEDA with HPA", "Azure target-based", "Knative KPA"} {
		if !strings.Contains(out, part) {
			t.Errorf("the table lacks %q:\n%s", part, out)
		}
	}
	if plot, err := os.ReadFile(filepath.Join(dir, "plots", "slow-starters.svg")); err != nil || !bytes.HasPrefix(plot, []byte("<svg")) {
		t.Errorf("the plot: %.20q, %v", plot, err)
	}

	// The traces that were written are read again, with another policy.
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("scale: {max_age: 1m, instances: {min: 1, max: 80}}\nmodel: {service_time: 500ms, start_up: 60s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs = commandOutput(t, "scale", "simulate", "--trace", filepath.Join(dir, "slow-starters.csv"), "--policy", policy)
	if status != ExitOK || !strings.Contains(out, "slow-starters") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	status, _, errs = commandOutput(t, "scale", "simulate", "--trace", filepath.Join(dir, "slow-starters.csv"))
	if status != ExitOK {
		t.Errorf("without a policy: status %d\n%s", status, errs)
	}

	gap := filepath.Join(dir, "gap.csv")
	bad := filepath.Join(dir, "bad.yaml")
	young := filepath.Join(dir, "young.yaml")
	for path, text := range map[string]string{
		gap: "time,arrivals\n0,1\n1,1\n5,1\n", bad: "scale: {instances: {min: 5, max: 4}}\n", young: "scale: {max_age: 1ms, instances: {max: 4}}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--trace", "steadily"}, "no trace steadily: it is not a file, all, or one of steady, step"},
		{[]string{"--trace", gap}, "gap.csv: line 4 is 4s after the line before it"},
		{[]string{"--trace", dir}, "reading a trace"},
		{[]string{"--trace", "step", "--policy", bad}, "min (5) is more than max (4)"},
		{[]string{"--trace", "step", "--policy", young}, "young.yaml: model: max_age is 1ms"},
		{[]string{"--trace", "step", "--policy", "none.yaml"}, "no configuration none.yaml"},
		{[]string{"--trace", "step", "--plot", filepath.Join(gap, "plots")}, "making "},
	} {
		status, _, errs := commandOutput(t, append([]string{"scale", "simulate"}, c.args...)...)
		if status != ExitFailed || !strings.Contains(errs, c.want) {
			t.Errorf("%v: status %d, %q; want %q", c.args, status, errs, c.want)
		}
	}
}
