package profiles

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/apps"
	"github.com/drover-run/drover/daemon/internal/apps/labels"
	"github.com/drover-run/drover/daemon/internal/instances"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/handlers/workers/profiling"
	"github.com/drover-run/drover/handlers/workers/protocol"
	"github.com/drover-run/drover/triggers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is the API of a daemon whose functions are configured and open.
type served struct {
	http.Handler
	handler  handlers.Handler // of f
	function *apps.Function
}

func serve(t *testing.T, own handlers.Handler) *served {
	t.Helper()
	cfg := configs.New()
	cfg.Functions = map[string]configs.Function{
		"f": {Handler: configs.Handler{Go: "f"}}, "g": {Handler: configs.Handler{Go: "g"}}, "starting": {Handler: configs.Handler{Go: "h"}},
		"command": {Handler: configs.Handler{Exec: &configs.ExecHandler{}}}, "posts": {Handler: configs.Handler{HTTP: &configs.HTTPHandler{}}},
	}
	log := slog.New(slog.DiscardHandler)
	f, g := apps.NewFunction("f", cfg.Functions["f"], log), apps.NewFunction("g", cfg.Functions["g"], log)
	marked, s := labels.Mark("f", own)
	f.Labels = s
	routes := Routes(&View{
		Config: func() *configs.Config { return cfg }, Running: func() []*apps.Function { return []*apps.Function{f, g} },
		Fleet: func() *instances.Fleet { return nil }, DataDir: func() string { return "" },
	})
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.Method+" "+r.Path, r.Handler)
	}
	return &served{mux, marked, f}
}

// post requests a profile, and returns the answer, or the text of an error.
func (s *served) post(ctx context.Context, path string) (status int, got api.Profile, problem string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, nil))
	var failed api.Problem
	if w.Code != http.StatusOK {
		_ = json.Unmarshal(w.Body.Bytes(), &failed) // the text stays empty
	} else if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		failed.Error = err.Error()
	}
	return w.Code, got, failed.Error
}

func TestRefusals(t *testing.T) {
	s := serve(t, handlers.Func(nil))
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/v1/functions/ff/profile":             {404, `there is no function "ff" (did you mean f?)`},
		"/v1/functions/f/profile?seconds=0.5":  {400, `seconds is "0.5"; use a number from 1 to 300`},
		"/v1/functions/f/profile?seconds=NaN":  {400, `seconds is "NaN"`},
		"/v1/functions/f/profile?seconds=soon": {400, `seconds is "soon"`},
		"/v1/functions/f/profile?seconds=301":  {400, `seconds is "301"`},
		"/v1/functions/command/profile":        {422, "function command cannot be profiled: it runs a command for each message; profile that command with a tool of its language"},
		"/v1/functions/posts/profile":          {422, "function posts cannot be profiled: it posts its messages to an HTTP app; profile the app"},
		"/v1/functions/g/profile":              {422, "function g cannot be profiled: its handler is neither a handlers.Func nor a handlers.BatchFunc; set admin: {pprof: true}"},
		"/v1/functions/starting/profile":       {503, "function starting is not open yet: the daemon is starting"},
	} {
		if status, _, problem := s.post(t.Context(), path); status != want.status || !strings.Contains(problem, want.text) {
			t.Errorf("%s: %d, %s; want %d, %s", path, status, problem, want.status, want.text)
		}
	}
}

// compute uses a core until stop is closed.
func compute(stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
	}
}

func TestGoFunction(t *testing.T) {
	stop, called := make(chan struct{}), make(chan struct{}, 1)
	s := serve(t, handlers.Func(func(context.Context, *triggers.Message) ([]byte, error) {
		called <- struct{}{}
		compute(stop)
		return nil, nil
	}))
	type outcome struct {
		status  int
		got     api.Profile
		problem string
	}
	done, ended := make(chan outcome, 1), make(chan struct{})
	go func() {
		status, got, problem := s.post(t.Context(), "/v1/functions/f/profile?seconds=1")
		done <- outcome{status, got, problem}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !s.function.Labels.IsOn() {
		<-tick.C
	}
	go func() {
		defer close(ended)
		_, _ = s.handler.Handle(t.Context(), &triggers.Message{})
	}()
	<-called
	if status, _, problem := s.post(t.Context(), "/v1/functions/f/profile"); status != http.StatusConflict || !strings.Contains(problem, "function f is being profiled, for up to 1s more, and one profile runs at a time") {
		t.Errorf("a second profile: %d, %s", status, problem)
	}
	r := <-done
	close(stop)
	<-ended
	if r.status != http.StatusOK || r.got.Function != "f" || r.got.Kind != api.ProfileCPU || r.got.Seconds != 1 || r.got.Samples == 0 {
		t.Fatalf("%d, %+v, %s", r.status, r.got, r.problem)
	}
	p, err := profile.ParseData(r.got.Pprof)
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range p.Sample {
		text := ""
		for _, l := range sample.Location {
			text += l.Line[0].Function.Name + " "
		}
		if outermost := sample.Location[len(sample.Location)-1].Line; !strings.Contains(outermost[len(outermost)-1].Function.Name, "TestGoFunction.func") || len(sample.Label) > 0 {
			t.Errorf("a stack %s, with labels %v", text, sample.Label)
		}
	}
	// The labels are off again, and nothing is sampled without calls.
	if status, got, problem := s.post(t.Context(), "/v1/functions/f/profile?seconds=1"); status != http.StatusOK || got.Samples != 0 || got.Calls != 0 || got.Pprof != nil || s.function.Labels.IsOn() {
		t.Errorf("without calls: %d, %+v, %s", status, got, problem)
	}
}

func TestInterruptedGoFunction(t *testing.T) {
	s := serve(t, handlers.Func(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if status, _, problem := s.post(ctx, "/v1/functions/f/profile?seconds=300"); status != http.StatusServiceUnavailable || s.function.Labels.IsOn() {
		t.Errorf("interrupted: %d, %s", status, problem)
	}
	// The next one begins at once, unless the program profiles itself.
	if err := pprof.StartCPUProfile(new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	if status, _, problem := s.post(t.Context(), "/v1/functions/f/profile?seconds=300"); status != http.StatusServiceUnavailable || !strings.Contains(problem, "cpu profiling already in use by this program, or by a request for /debug/pprof/profile; try again after it") {
		t.Errorf("a CPU profile runs: %d, %s", status, problem)
	}
}

func TestAnswerOfWorkers(t *testing.T) {
	r := &profiling.Result{Workers: 2, Notes: []string{"worker 7 ended meanwhile; its samples are missing"}}
	lines := []protocol.ProfileLine{{Function: "f", File: "a.py", Line: 3, Start: 1}, {Function: "f", File: "a.py", Line: 4, Start: 1}, {Function: "g", File: "b.py", Line: 9, Start: 9}}
	stack := func(samples int64, at ...int) protocol.SampledStack {
		return protocol.SampledStack{Lines: at, ProfileCounters: protocol.ProfileCounters{Samples: samples, Time: samples * 10_000}}
	}
	r.Stacks.Add(&protocol.ProfiledFrame{Lines: lines, Stacks: []protocol.SampledStack{stack(2, 2, 0), stack(1, 1)}, Lost: protocol.ProfileCounters{Samples: 4, Time: 40_000}})
	out, err := answerOf(r, time.Second)
	if err != nil || out.Kind != api.ProfileWall || out.Samples != 3 || out.Workers != 2 || len(out.Notes) != 2 || out.Notes[1] != "4 samples of 40ms are missing: there were more than 10000 different stacks" {
		t.Fatalf("%+v, %v", out, err)
	}
	p, err := profile.ParseData(out.Pprof)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Error(err)
	}
	if len(p.Function) != 2 || len(p.Location) != 3 || len(p.Sample) != 2 || p.DefaultSampleType != api.ProfileWall || p.DurationNanos != time.Second.Nanoseconds() {
		t.Errorf("%v", p)
	}
	if s := p.Sample[0]; s.Value[0] != 2 || s.Value[1] != 20_000_000 || s.Location[0].Line[0].Function.Name != "g" || s.Location[1].Line[0].Line != 3 || s.Location[1].Line[0].Function.StartLine != 1 {
		t.Errorf("%v", s)
	}
}
