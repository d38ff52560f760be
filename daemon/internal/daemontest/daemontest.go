// Package daemontest helps the tests of the daemon, of its packages and of the command line: the
// output of a command, files, requests to the admin server, metrics.
package daemontest

import (
	dto "github.com/prometheus/client_model/go"

	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
)

// Patience bounds every wait for something that must happen.
const Patience = 4 * time.Minute

// Output is the output of a command. Tests can wait for parts of it.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

// NewOutput returns an empty output.
func NewOutput() *Output { return &Output{more: make(chan struct{}, 1)} }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

// String returns the output so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// WaitFor waits until the output contains a text.
func (o *Output) WaitFor(t *testing.T, part string) {
	t.Helper()
	deadline := time.After(Patience)
	for !strings.Contains(o.String(), part) {
		select {
		case <-o.more:
		case <-deadline:
			t.Fatalf("%q did not appear; the output is\n%s", part, o)
		}
	}
}

// WriteFiles creates a directory with files, by their paths in it, and returns it.
func WriteFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// SendGet is Send for a GET request.
func SendGet(t *testing.T, address, path string, headers ...string) (int, string) {
	t.Helper()
	return Send(t, address, http.MethodGet, path, nil, headers...)
}

// Send sends a request to a port or, if the address begins with a slash, to a socket. A header is
// written as "Name: value". It returns the status and the body of the response.
func Send(t *testing.T, address, method, path string, body io.Reader, headers ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			request.Host = value
		}
		request.Header.Set(name, value)
	}
	response, text := Do(t, address, request) //nolint:bodyclose // Do has read it to its end and closed it
	return response.StatusCode, text
}

// Do sends a request to an address of Send. It returns the response, whose body can be read again, and
// the body.
func Do(t *testing.T, address string, request *http.Request) (*http.Response, string) {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	response, err := client.Do(request) //nolint:gosec // the test chooses the address
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	return response, string(text)
}

// FreePort returns an address of this machine that nothing listens on.
func FreePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Protobuf is the header with which Prometheus requests native histograms.
const Protobuf = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// Scrape requests the metrics as Protocol Buffers.
func Scrape(t *testing.T, address string) map[string]*dto.MetricFamily {
	t.Helper()
	status, text := SendGet(t, address, "/metrics", Protobuf)
	if status != 200 {
		t.Fatalf("status %d: %s", status, text)
	}
	out := make(map[string]*dto.MetricFamily)
	for in := bufio.NewReader(strings.NewReader(text)); ; {
		var family dto.MetricFamily
		if err := protodelim.UnmarshalFrom(in, &family); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out[family.GetName()] = &family
	}
}

// Sum adds up the values of a family where a label has one of the values.
func Sum(f *dto.MetricFamily, label string, values ...string) (total float64) {
	for _, m := range f.GetMetric() {
		fits := len(values) == 0
		for _, l := range m.Label {
			for _, v := range values {
				fits = fits || l.GetName() == label && l.GetValue() == v
			}
		}
		if fits {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// CheckBalance checks the ledger of one scrape, and returns how many messages were received and how
// many of them are in flight.
func CheckBalance(t *testing.T, families map[string]*dto.MetricFamily) (received, inFlight float64) {
	t.Helper()
	received, inFlight = Sum(families["drover_messages_received_total"], ""), Sum(families["drover_messages_in_flight"], "")
	settled := Sum(families["drover_messages_settled_total"], "")
	if received != settled+inFlight || inFlight < 0 {
		t.Errorf("received %v, settled %v, in flight %v", received, settled, inFlight)
	}
	if rejected, reasons := Sum(families["drover_messages_settled_total"], "verdict", "reject"), Sum(families["drover_rejections_total"], ""); rejected != reasons {
		t.Errorf("rejected %v, and %v with a reason", rejected, reasons)
	}
	return received, inFlight
}

// WaitUntil waits for a condition that other processes fulfill. out is their log.
func WaitUntil(t *testing.T, out *Output, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; the log is\n%s", what, Patience, out)
		}
	}
}

// Binary builds the command once for all tests of a package, and returns its path.
var Binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "drover-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "drover")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/drover-run/drover").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// BypassShims makes tests start Python itself where python3 on the path is a script, such as a shim of
// pyenv. A shim takes longer to start than Python, and tests start hundreds of processes. TestMain calls it.
func BypassShims() error {
	path, err := exec.LookPath("python3")
	if err != nil {
		return nil // the tests that need it report that
	}
	program, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	begin := make([]byte, 2)
	if _, err := io.ReadFull(program, begin); err != nil || string(begin) != "#!" {
		return err
	}
	dir, err := exec.Command(path, "-c", "import os, sys; print(os.path.dirname(sys.executable), end='')").Output()
	if err != nil {
		return fmt.Errorf("asking %s for the directory of Python: %w", path, err)
	}
	return os.Setenv("PATH", string(dir)+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// PythonConfig is a configuration of one Python function, greet.
const PythonConfig = `
log: {level: debug}
drain: 20s
functions:
  greet:
    trigger: {nats: {ack_wait: 10s}}
    handler: {python: {path: ./app, processes: 1}}
    retry: {max_attempts: 2, initial: 10ms}
`
