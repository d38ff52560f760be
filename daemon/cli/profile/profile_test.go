package profile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/internal/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a client whose daemon answers with a profile.
type answer struct {
	api.Profile
	path string
}

func (a *answer) PostJSON(ctx context.Context, path string, _ []byte, into any) error {
	a.path = path
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := json.Marshal(a.Profile)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func sampled(t *testing.T) []byte {
	t.Helper()
	f := &profile.Function{ID: 1, Name: "total", Filename: "/app/shop.py"}
	at := &profile.Location{ID: 1, Line: []profile.Line{{Function: f, Line: 3}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "wall", Unit: "nanoseconds"}},
		Function:   []*profile.Function{f}, Location: []*profile.Location{at}, Sample: []*profile.Sample{{Location: []*profile.Location{at}, Value: []int64{150, 1_500_000_000}}},
	}
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFilesOfAProfile(t *testing.T) {
	t.Chdir(t.TempDir())
	client := &answer{Profile: api.Profile{Function: "orders", Seconds: 10, Kind: api.ProfileWall, Calls: 40, Samples: 150, Workers: 2, Notes: []string{"worker 7 ended meanwhile; its samples are missing"}, Pprof: sampled(t)}}
	var out, notes strings.Builder
	o := &Options{Function: "orders", For: 10 * time.Second}
	if err := o.Run(t.Context(), client, &out, &notes); err != nil {
		t.Fatal(err)
	}
	const want = `40 calls, 150 samples, 1.5s of the calls' time in 10s, in 2 workers
note: worker 7 ended meanwhile; its samples are missing
wrote orders.svg, a flame graph: open it in a browser
wrote orders.pb.gz: open it with go tool pprof orders.pb.gz
`
	if out.String() != want || notes.String() != "profiling function orders for 10s\n" {
		t.Errorf("%s%s", notes.String(), out.String())
	}
	if client.path != "/v1/functions/orders/profile?seconds=10" {
		t.Errorf("requested %s", client.path)
	}
	svg, err := os.ReadFile("orders.svg")
	if err != nil || !strings.Contains(string(svg), "drover profile orders") || !strings.Contains(string(svg), "/app/shop.py:3") {
		t.Errorf("%s, %v", svg, err)
	}
	if pb, err := os.ReadFile("orders.pb.gz"); err != nil || !bytes.Equal(pb, client.Pprof) {
		t.Errorf("the pprof file has %d bytes, %v", len(pb), err)
	}
}

func TestNamesOfFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	client := &answer{Profile: api.Profile{Kind: api.ProfileCPU, Samples: 1, Pprof: sampled(t)}}
	for _, c := range []struct{ function, output, svg, says string }{
		{"a/../b c", "", "a_.._b_c.svg", "go tool pprof a_.._b_c.pb.gz\n"},
		{"-f", "", "f.svg", "go tool pprof f.pb.gz\n"},
		{"f", "it's.svg", "it's.svg", `go tool pprof 'it'\''s.pb.gz'` + "\n"},
	} {
		var out strings.Builder
		o := &Options{Function: c.function, For: time.Second, Output: c.output}
		if err := o.Run(t.Context(), client, &out, io.Discard); err != nil || !strings.Contains(out.String(), c.says) || !strings.Contains(out.String(), "of processor time") {
			t.Errorf("%s: %v, %s", c.function, err, out.String())
		}
		if _, err := os.Stat(c.svg); err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsOfAProfile(t *testing.T) {
	t.Chdir(t.TempDir())
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for want, c := range map[string]struct {
		ctx     context.Context
		options Options
		answer  api.Profile
	}{
		"--for is 999ms; use a duration from 1s to 5m":                       {options: Options{For: 999 * time.Millisecond}},
		"--for is 5m1s; use a duration from 1s to 5m":                        {options: Options{For: 301 * time.Second}},
		`--output is "f.pb"; name a file that ends with .svg`:                {options: Options{For: time.Second, Output: "f.pb"}},
		"interrupted; the workers no longer sample, and nothing was written": {ctx: cancelled, options: Options{For: time.Second}},
		"no call of function f ran within 1s: send it messages meanwhile, or profile it for longer with --for (worker 3 ended); nothing was written": {
			options: Options{Function: "f", For: time.Second}, answer: api.Profile{Kind: api.ProfileWall, Notes: []string{"worker 3 ended"}},
		},
		"5 calls of function f ran within 1s, and none was running at a sample: they are too short, or wait in an event loop; profile it for longer with --for; nothing was written": {
			options: Options{Function: "f", For: time.Second}, answer: api.Profile{Kind: api.ProfileWall, Calls: 5},
		},
		"5 calls of function f ran within 1s, and none that began after the start of the profile computed at a sample: profile it for longer with --for; nothing was written": {
			options: Options{Function: "f", For: time.Second}, answer: api.Profile{Kind: api.ProfileCPU, Calls: 5},
		},
		"reading the daemon's answer: ":             {options: Options{Function: "f", For: time.Second}, answer: api.Profile{Pprof: []byte("nothing")}},
		"writing the flame graph: open no/such.svg": {options: Options{For: time.Second, Output: "no/such.svg"}, answer: api.Profile{Pprof: sampled(t)}},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		err := c.options.Run(ctx, &answer{Profile: c.answer}, io.Discard, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		var usage exit.UsageError
		if errors.As(err, &usage) != strings.HasPrefix(want, "--") {
			t.Errorf("%v is a %T", err, err)
		}
	}
	if files, err := os.ReadDir("."); err != nil || len(files) > 0 {
		t.Errorf("files were written: %v, %v", files, err)
	}
}
