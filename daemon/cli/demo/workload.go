package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// The demo's functions: one for each kind of workload in the Azure guide to Python performance.

//go:embed function_app.py
var app []byte

// function is one function of the demo and its load.
type function struct {
	name string
	// ahead is how many messages the feeder keeps in the queue or in flight: enough to keep the
	// function busy, few enough to drain fast.
	ahead int
	// share is its fraction of `--messages`.
	share float64
	body  func(n int) []byte
}

var functions = []function{
	{"resize", 150, 0.2, func(n int) []byte {
		return fmt.Appendf(nil, `{"width": 640, "height": 480, "seed": %d}`, n)
	}},
	{"digest", 150, 0.3, func(n int) []byte { return fmt.Appendf(nil, "document %d", n) }},
	{"fetch", 600, 0.5, func(n int) []byte { return fmt.Appendf(nil, "/items/%d", n) }},
}

const connection = "demo"

// ackWait is short, so that the messages in flight of a killed demo are redelivered soon.
const ackWait = 5 * time.Second

// newConfig returns the configuration of the three functions.
func newConfig(dataDir, appDir string) *configs.Config {
	cfg := configs.New()
	cfg.DataDir = dataDir
	cfg.Connections = map[string]configs.Connection{connection: sources.LocalConnection()}
	cfg.Functions = make(map[string]configs.Function)
	for _, f := range functions {
		fn := configs.Function{
			Trigger: sources.LocalTrigger(ackWait),
			Timeout: configs.Duration(30 * time.Second),
		}
		if f.name == "resize" {
			fn.Handler.Go = "resize"
			fn.Concurrency = runtime.NumCPU()
		} else {
			fn.Handler.Python = &configs.PythonHandler{Path: appDir}
		}
		cfg.Functions[f.name] = fn
	}
	return cfg
}

// makeThumbnail draws a picture as the message describes it, and returns a thumbnail of it.
func makeThumbnail(_ context.Context, m *triggers.Message) ([]byte, error) {
	var in struct{ Width, Height, Seed int }
	if err := json.Unmarshal(m.Body, &in); err != nil {
		return nil, handlers.Reject(fmt.Errorf("reading the message: %w", err))
	}
	if in.Width < 1 || in.Width > 4096 || in.Height < 1 || in.Height > 4096 {
		return nil, handlers.Reject(fmt.Errorf("a picture of %d by %d pixels; 1 to 4096 are allowed", in.Width, in.Height))
	}
	picture := image.NewRGBA(image.Rect(0, 0, in.Width, in.Height))
	for y := range in.Height {
		for x := range in.Width {
			picture.SetRGBA(x, y, color.RGBA{uint8(x + in.Seed), uint8(y), uint8(x ^ y), 255})
		}
	}
	const width = 160
	thumbnail := image.NewRGBA(image.Rect(0, 0, width, max(in.Height*width/in.Width, 1)))
	scaleDown(thumbnail, picture)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, thumbnail, nil); err != nil {
		return nil, fmt.Errorf("encoding the thumbnail: %w", err)
	}
	return out.Bytes(), nil
}

// scaleDown fills a picture with the averages of the pixels of a larger one.
func scaleDown(to, from *image.RGBA) {
	wide, high := to.Rect.Dx(), to.Rect.Dy()
	for y := range high {
		top, bottom := y*from.Rect.Dy()/high, max((y+1)*from.Rect.Dy()/high, y*from.Rect.Dy()/high+1)
		for x := range wide {
			left, right := x*from.Rect.Dx()/wide, max((x+1)*from.Rect.Dx()/wide, x*from.Rect.Dx()/wide+1)
			var sums [4]int
			for row := top; row < bottom; row++ {
				for i, v := range from.Pix[from.PixOffset(left, row):from.PixOffset(right, row)] {
					sums[i%4] += int(v)
				}
			}
			pixels := (bottom - top) * (right - left)
			for i, sum := range sums {
				to.Pix[to.PixOffset(x, y)+i] = uint8(sum / pixels)
			}
		}
	}
}

// endpoint is the server that fetch calls: it takes 100 ms to answer.
type endpoint struct {
	server *http.Server
	ended  chan error
}

func startEndpoint(appDir string) (*endpoint, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the demo's endpoint: %w", err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	if err := writeApp(appDir, addr); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	e := &endpoint{ended: make(chan error, 1)}
	e.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(100 * time.Millisecond):
				_ = json.NewEncoder(w).Encode(map[string]string{"path": r.URL.Path}) // the client may have disconnected
			case <-r.Context().Done():
			}
		}),
	}
	go func() { e.ended <- e.server.Serve(listener) }()
	return e, nil
}

func (e *endpoint) stopServer() error {
	err := e.server.Close()
	if served := <-e.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// writeApp writes the Python functions to the directory that the workers import from.
func writeApp(dir string, endpoint *net.TCPAddr) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the demo's app: %w", err)
	}
	where, err := json.Marshal(map[string]any{"host": endpoint.IP.String(), "port": endpoint.Port})
	if err != nil {
		return fmt.Errorf("making the demo's app: %w", err)
	}
	for name, content := range map[string][]byte{"function_app.py": app, "endpoint.json": where} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("making the demo's app: %w", err)
		}
	}
	return nil
}
