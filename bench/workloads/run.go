package workloads

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	_ "embed"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon"
	"github.com/drover-run/drover/handlers/python"

	"github.com/drover-run/drover/bench/rig"
)

//go:embed function_app.py
var workloadsApp []byte

const (
	workloadsSize = 16                     // bytes of a message
	look          = 500 * time.Millisecond // between two points of a track
	warmUp        = time.Second
	requestTakes  = 50 * time.Millisecond
)

// point is the state at one moment of a run.
type point struct {
	At   float64 `json:"at"`   // seconds since the run's start
	Done []int64 `json:"done"` // by function
	seen
}

// track is one run: the points, the first at its start.
type track struct {
	Points []point `json:"points"`
	// Flips are when the function's kind changed.
	Flips []float64 `json:"flips,omitempty"`
}

func (t *track) end() float64 { return t.Points[len(t.Points)-1].At }

// at returns the last point that is not after a moment.
func (t *track) at(moment float64) point {
	found := t.Points[0]
	for _, p := range t.Points {
		if p.At > moment {
			break
		}
		found = p
	}
	return found
}

// rate returns the messages per second between two moments. For several functions it is the
// geometric mean, so that the gain of one does not compensate for another that starves.
func (t *track) rate(from, to float64) float64 {
	a, b := t.at(from), t.at(to)
	if b.At <= a.At {
		return 0
	}
	product := 1.0
	for i := range a.Done {
		product *= float64(b.Done[i]-a.Done[i]) / (b.At - a.At)
	}
	return math.Pow(product, 1/float64(len(a.Done)))
}

// bed is the environment of the workloads: the rig, the app, and a server for its requests.
type bed struct {
	*rig.Rig
	have   int  // messages in the stream
	runs   int  // of daemons
	numpy  bool // the functions can import NumPy
	mode   *os.File
	server *http.Server
	served chan error
}

func newBed(ctx context.Context) (*bed, error) {
	r, err := rig.NewOf(ctx, true)
	if err != nil {
		return nil, err
	}
	b := &bed{Rig: r, served: make(chan error, 1)}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bed) prepare(ctx context.Context) (err error) {
	app := filepath.Join(b.Dir, "function_app.py")
	if err := os.WriteFile(app, workloadsApp, 0o600); err != nil {
		return err
	}
	if b.mode, err = os.Create(filepath.Join(b.Dir, "mode")); err != nil {
		return err
	}
	if err := b.flip('-'); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(requestTakes):
			fmt.Fprintln(w, "Complete")
		case <-r.Context().Done():
		}
	})}
	go func() { b.served <- b.server.Serve(listener) }()
	interpreter, err := python.FindInterpreter(ctx, b.Dir, "", os.LookupEnv)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, interpreter.Path, app)
	command.Stderr = os.Stderr
	text, err := command.Output()
	if err != nil {
		return fmt.Errorf("calibrating the functions: %w", err)
	}
	set := make(map[string]any)
	if err := json.Unmarshal(text, &set); err != nil {
		return fmt.Errorf("calibrating the functions: %w", err)
	}
	b.numpy = set["numpy"] == true
	fmt.Fprintf(os.Stderr, "20 ms of this machine: %s\n", text)
	set["url"] = "http://" + listener.Addr().String() + "/"
	if text, err = json.Marshal(set); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.Dir, "workloads.json"), text, 0o600)
}

func (b *bed) close() error {
	var errs []error
	if b.server != nil {
		errs = append(errs, b.server.Close())
		if err := <-b.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if b.mode != nil {
		errs = append(errs, b.mode.Close())
	}
	return errors.Join(append(errs, b.Close())...)
}

// flip sets the kind of the function that changes: the workers have the file mapped.
func (b *bed) flip(mode rune) error {
	_, err := b.mode.WriteAt([]byte{byte(mode)}, 0)
	return err
}

// stock fills the stream up to n messages.
func (b *bed) stock(ctx context.Context, n int) error {
	if n <= b.have {
		return nil
	}
	if err := b.Fill(ctx, n-b.have, workloadsSize, nil); err != nil {
		return fmt.Errorf("filling the stream: %w", err)
	}
	b.have = n
	return nil
}

// errEmpty reports that a function came near the end of the stream.
var errEmpty = errors.New("the stream was not full all the time")

// run measures a workload with explicit settings, or with nil without any, for the same time in
// each mode. With explicit ones the track starts when all workers are warm, otherwise when the
// daemon is ready. rate is an estimate for the number of messages; if they do not suffice, it runs
// again with twice as many.
func (b *bed) run(ctx context.Context, w workload, s *settings, modes string, each time.Duration, rate float64) (*track, error) {
	n := int(rate*(time.Duration(len(modes))*each+3*warmUp).Seconds()) + 2000
	for {
		if err := b.stock(ctx, n); err != nil {
			return nil, err
		}
		t, err := b.once(ctx, w, s, modes, each)
		if !errors.Is(err, errEmpty) {
			return t, err
		}
		n = 2 * max(n, b.have)
	}
}

// once may end with errEmpty.
func (b *bed) once(ctx context.Context, w workload, s *settings, modes string, each time.Duration) (t *track, err error) {
	if err := b.flip(rune(modes[0])); err != nil {
		return nil, err
	}
	functions := make(map[string]configs.Function)
	for _, name := range w.Functions {
		b.Next++
		consumer, err := b.JS.CreateConsumer(ctx, rig.Stream, jetstream.ConsumerConfig{
			Durable: fmt.Sprint("c", b.Next), AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxDeliver: -1,
			MaxAckPending: -1, // a bound here would look like the best setting
			FilterSubject: rig.Subject,
		})
		if err != nil {
			return nil, err
		}
		id := consumer.CachedInfo().Name
		defer func() { err = errors.Join(err, b.JS.DeleteConsumer(context.WithoutCancel(ctx), rig.Stream, id)) }()
		functions[name] = configs.Function{
			Trigger: configs.Trigger{NATS: &configs.NATSTrigger{Stream: rig.Stream, Consumer: id, Subject: rig.Subject}},
			Handler: configs.Handler{Python: &configs.PythonHandler{App: workloadsAppName, Function: name}},
		}
	}
	d, stop, err := b.Daemon(ctx, "", rig.Setup{Change: func(c *configs.Config) { b.configure(c, functions, s) }})
	if err != nil {
		return nil, err
	}
	defer func() { // before its consumers: it would miss them
		if why := stop(); !errors.Is(why, daemon.ErrCutShort) { // cutting short is fine: the measurement is over
			err = errors.Join(err, why)
		}
	}()
	if s != nil {
		if err := b.warm(ctx, d, w, s); err != nil {
			return nil, err
		}
	}
	return b.track(ctx, d, w, modes, each)
}

// done are the messages of each function.
func done(d *daemon.Daemon, w workload) []int64 {
	counts := make([]int64, len(w.Functions))
	for _, f := range d.Status() {
		for i, name := range w.Functions {
			if f.Name == name {
				counts[i] = f.Done
			}
		}
	}
	return counts
}

// warm waits until all workers are there and each function has done something, and for a
// second more.
func (b *bed) warm(ctx context.Context, d *daemon.Daemon, w workload, s *settings) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	giveUp := time.After(rig.StuckAfter)
	var ready <-chan time.Time
	for {
		select {
		case <-tick.C:
			all := ready == nil
			for _, n := range done(d, w) {
				all = all && n > 0
			}
			if all && d.Status()[0].Workers == s.Processes {
				ready = time.After(warmUp)
			}
		case <-ready:
			return nil
		case <-giveUp:
			return fmt.Errorf("%d workers and a first message: not within %v", s.Processes, rig.StuckAfter)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *bed) track(ctx context.Context, d *daemon.Daemon, w workload, modes string, each time.Duration) (*track, error) {
	t := new(track)
	start := time.Now()
	note := func() point {
		p := point{At: time.Since(start).Seconds(), Done: done(d, w), seen: see(d, w)}
		t.Points = append(t.Points, p)
		return p
	}
	first := note()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for i, mode := range modes {
		if i > 0 {
			t.Flips = append(t.Flips, time.Since(start).Seconds())
		}
		if err := b.flip(mode); err != nil {
			return nil, err
		}
		for ends := time.Duration(i+1) * each; time.Since(start) < ends; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			p := note()
			for _, n := range p.Done {
				// What a second brings must still be there.
				if float64(n)+float64(n-first.Done[0])/max(p.At, 1) > 0.95*float64(b.have) {
					return nil, errEmpty
				}
			}
		}
	}
	return t, nil
}
