package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// storage runs an emulated storage account, and returns its connection string.
func storage(t *testing.T) (*emulator.Emulator, string) {
	t.Helper()
	e := emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, e, l)
	return e, emulator.ConnectionString(l.Addr().String())
}

// queueClient returns a client of the SDK.
func queueClient(t *testing.T, connection, queue string) *azqueue.QueueClient {
	t.Helper()
	c, err := azqueue.NewQueueClientFromConnectionString(connection, queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waitLen waits until a queue has that many messages.
func waitLen(t *testing.T, connection, queue string, want int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		got, err := queueClient(t, connection, queue).GetProperties(t.Context(), nil)
		if err == nil && *got.ApproximateMessagesCount == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has %v messages (%v), want %d", queue, got.ApproximateMessagesCount, err, want)
		}
	}
}

// The example for new users runs unchanged, with both servers.
func TestTheStorageQueueExample(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T) string{
		"emulator": func(t *testing.T) string { _, connection := storage(t); return connection },
		"azurite":  func(t *testing.T) string { return azuritetest.Start(t).ConnectionString() },
	} {
		t.Run(name, func(t *testing.T) {
			connection := connect(t)
			files := map[string]string{}
			for _, name := range []string{"storagequeue.yaml", "app/function_app.py"} {
				text, err := os.ReadFile(filepath.Join("..", "..", "configs", name))
				if err != nil {
					t.Fatal(err)
				}
				// Five attempts with their delays would take too long for a test.
				files[name] = strings.Replace(string(text), "max_attempts: 5", "max_attempts: 2", 1)
			}
			t.Setenv("AzureWebJobsStorage", connection)
			file := filepath.Join(write(t, files), "storagequeue.yaml")
			send := func(args ...string) {
				t.Helper()
				if status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file, "images"}, args...)...); status != 0 {
					t.Fatalf("status %d: %s%s", status, out, errs)
				}
			}
			send("--count", "3") // creates the queue
			log, stop := startCommand(t, "run", file)
			send("--count", "10", "--delay", "1s", "--ttl", "1h")
			send("--body", "")
			log.WaitFor(t, "a thumbnail of small 3")
			log.WaitFor(t, "a thumbnail of small 10")
			log.WaitFor(t, "message dead-lettered")
			waitLen(t, connection, "images", 0)
			waitLen(t, connection, "thumbnails", 0)
			if status := stop(); status != ExitOK {
				t.Errorf("status %d: %s", status, log)
			}
			if strings.Contains(log.String(), emulator.Key) {
				t.Error("the key is in the log")
			}
			dead, err := queueClient(t, connection, "images-poison").PeekMessage(t.Context(), nil)
			if err != nil || len(dead.Messages) != 1 {
				t.Fatalf("%v, %v", dead.Messages, err)
			}
			raw, err := base64.StdEncoding.DecodeString(*dead.Messages[0].MessageText)
			if err != nil {
				t.Fatal(err)
			}
			var letter storagequeue.Envelope
			if err := json.Unmarshal(raw, &letter); err != nil {
				t.Fatal(err)
			}
			if letter.Attempts != 2 || letter.DequeueCount != 2 || letter.Function != "images" || letter.Queue != "images" || !strings.Contains(letter.Error, "an image without a name") || !strings.Contains(letter.Traceback, "function_app.py") {
				t.Errorf("%+v", letter)
			}
		})
	}
}

func TestStorageQueueErrors(t *testing.T) {
	t.Parallel()
	e, connection := storage(t)
	if err := e.CreateQueue("orders"); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  store: {connection_string: "file:secret"}
  local: {nats: embedded}
functions:
  orders:
    trigger: {storage_queue: {encoding: text}}
    handler: {python: {path: ./app}}
  missing:
    trigger: {storage_queue: {queue: missing}}
    handler: {python: {path: ./app}}
  other:
    trigger: {nats: {}}
    handler: {python: {path: ./app}}
`, "app/function_app.py": "def orders(body): pass\ndef missing(body): pass\ndef other(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{ExitStart, "function missing: looking into missing: QueueNotFound (HTTP 404); check the name; create: true creates it", []string{"run", file}},
		{ExitFailed, "sending to missing, after 0 messages were accepted", []string{"send", "-c", file, "missing", "--body", "x"}},
		{ExitUsage, "--ttl and --encoding are for storage queues", []string{"send", "-c", file, "other", "--body", "x", "--ttl", "1m"}},
		{ExitUsage, "storage queues have no sessions", []string{"send", "-c", file, "orders", "--body", "x", "--session", "s"}},
		{ExitUsage, "a message there has only a body", []string{"send", "-c", file, "orders", "--body", "x", "-H", "a=b"}},
		{ExitUsage, "--encoding is base64 or text", []string{"send", "-c", file, "orders", "--body", "x", "--encoding", "utf8"}},
		{ExitUsage, "too far ahead: a storage queue can hold a message for at most 7 days", []string{"send", "-c", file, "orders", "--body", "x", "--delay", "169h"}},
		{ExitUsage, "--at: 2020-01-31T08:00:00Z is in the past", []string{"send", "-c", file, "orders", "--body", "x", "--at", "2020-01-31T08:00:00Z"}},
		{ExitUsage, "must not be negative", []string{"send", "-c", file, "orders", "--body", "x", "--delay=-1s"}},
		{ExitUsage, "would expire after 1s (--ttl), before they can be received, after 1m0s", []string{"send", "-c", file, "orders", "--body", "x", "--delay", "1m", "--ttl", "1s"}},
		{ExitFailed, "byte 1 is not a character of text", []string{"send", "-c", file, "orders", "--body", "a\x01"}},
		{ExitFailed, "the message is too large for a storage queue: 65537 bytes", []string{"send", "-c", file, "orders", "--body", strings.Repeat("x", 64<<10+1)}},
		{ExitOK, "sent 1 to orders", []string{"send", "-c", file, "orders", "--body", "plain"}},
		{ExitOK, "sent 1 to orders", []string{"send", "-c", file, "--via", "store", "orders", "--body", "plain", "--encoding", "text"}},
	} {
		if status, out, errs := command(t.Context(), nil, strings.NewReader(""), test.args...); status != test.status || !strings.Contains(out+errs, test.want) {
			t.Errorf("%q: status %d, %s%s; want %d, %q", test.args, status, out, errs, test.status, test.want)
		}
	}
	peeked, err := queueClient(t, connection, "orders").PeekMessages(t.Context(), nil)
	if err != nil || len(peeked.Messages) != 1 || *peeked.Messages[0].MessageText != "plain" {
		t.Errorf("%v, %v", peeked.Messages, err)
	}
}

// Two daemons over one data directory would each count only a part of the failures.
func TestTwoDaemonsOverOneLedger(t *testing.T) {
	t.Parallel()
	e, connection := storage(t)
	if err := e.CreateQueue("orders"); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
admin: {listen: "off"} # whose socket would be found first
connections:
  store: {connection_string: "file:secret"}
functions:
  orders:
    trigger: {storage_queue: {}}
    handler: {python: {path: ./app}}
`, "app/function_app.py": "def orders(body): pass\n"})
	file := filepath.Join(dir, "drover.yaml")
	log, _ := startCommand(t, "run", file)
	log.WaitFor(t, "running")
	status, _, errs := command(t.Context(), nil, strings.NewReader(""), "run", file)
	if status != ExitStart || !strings.Contains(errs, "another daemon uses this data directory; give each its own data_dir") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// A result that a storage queue can never accept rejects its message. One that the queue does not
// accept yet holds it. No result is sent twice because of another.
func TestOutputsToStorageQueues(t *testing.T) {
	t.Parallel()
	e, connection := storage(t)
	for _, name := range []string{"numbers", "texts"} {
		if err := e.CreateQueue(name); err != nil {
			t.Fatal(err)
		}
	}
	dir := write(t, map[string]string{"secret": connection, "drover.yaml": `
connections:
  store: {connection_string: "file:secret"}
functions:
  numbers:
    trigger: {storage_queue: {}}
    handler: {python: {path: ./app, threads: 8}}
    output: {storage_queue: {queue: results, encoding: text, time_to_live: 0s}}
  texts:
    trigger: {storage_queue: {poison_format: envelope}}
    handler: {python: {path: ./app, threads: 8}}
    output: {storage_queue: {queue: results, encoding: text, delay: 1h, time_to_live: 2h}}
`, "app/function_app.py": `
def numbers(body): return body
def texts(body): return b"\x00" if body == b"bytes" else b"x" * 65537 if body == b"large" else body
`})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	for _, args := range [][]string{{"numbers", "--count", "50"}, {"texts", "--body", "bytes"}, {"texts", "--body", "large"}, {"texts", "--body", "later"}} {
		if status, out, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"send", "-c", file}, args...)...); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, errs)
		}
	}
	log.WaitFor(t, "cannot send a result; will retry until it works")
	if err := e.CreateQueue("results"); err != nil {
		t.Fatal(err)
	}
	waitLen(t, connection, "numbers", 0)
	waitLen(t, connection, "texts", 0)
	waitLen(t, connection, "texts-poison", 2)
	if n := e.Len("results"); n != 51 {
		t.Errorf("%d results, want 51: each once", n)
	}
	got, err := queueClient(t, connection, "results").DequeueMessages(t.Context(), nil)
	if err != nil || len(got.Messages) != 1 || got.Messages[0].ExpirationTime.Year() != 9999 {
		t.Errorf("%v, %v", got.Messages, err)
	}
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	for _, want := range []string{"the message is too large for a storage queue", "the message cannot be encoded: byte 0"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, log)
		}
	}
}

// An account given by name, with a managed identity and its own root certificates, over TLS:
// Azurite checks the claims of the token.
func TestAStorageAccountByIdentity(t *testing.T) {
	clients := managedIdentity(t)
	_, roots, whole := selfSigned(t, "127.0.0.1")
	keys := write(t, map[string]string{"cert.pem": roots, "key.pem": strings.TrimPrefix(whole, roots)})
	s := azuritetest.StartIn(t, t.TempDir(), "0", "--oauth", "basic", "--cert", filepath.Join(keys, "cert.pem"), "--key", filepath.Join(keys, "key.pem"))
	dir := write(t, map[string]string{"roots.pem": roots, "drover.yaml": fmt.Sprintf(`
connections:
  store:
    storage_account: %s
    endpoint: https://%s/%[1]s
    identity: managed
    client_id: 11111111-2222-3333-4444-555555555555
    tls: {ca: "file:roots.pem"}
functions:
  orders:
    trigger: {storage_queue: {create: true}}
    handler: {python: {path: ./app, function: greet}}
`, emulator.Account, s.Address), "app/function_app.py": "def greet(body): print('hello', body.decode())\n"})
	file := filepath.Join(dir, "drover.yaml")
	log, stop := startCommand(t, "run", file)
	log.WaitFor(t, "running")
	if status, out, errs := command(t.Context(), nil, strings.NewReader(""), "send", "-c", file, "orders", "--body", "ann"); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	log.WaitFor(t, "hello ann")
	if status := stop(); status != ExitOK {
		t.Errorf("status %d: %s", status, log)
	}
	if len(*clients) == 0 || (*clients)[0] != "11111111-2222-3333-4444-555555555555" {
		t.Errorf("tokens were asked for by %v", *clients)
	}
}

func TestEmulateStorageQueue(t *testing.T) {
	t.Parallel()
	out, stop := startCommand(t, "emulate", "storagequeue", "--listen", "127.0.0.1:0", "--queue", "orders")
	out.WaitFor(t, "QueueEndpoint=")
	connection := ""
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "DefaultEndpointsProtocol=") {
			connection = strings.TrimSpace(line)
		}
	}
	if !strings.Contains(out.String(), "queue orders") {
		t.Errorf("%s", out)
	}
	account := storagequeue.NewAccount(storagequeue.Access{ConnectionString: func() (string, error) { return connection, nil }})
	s, err := storagequeue.NewSender(storagequeue.SenderConfig{Account: account, Queue: "orders", Encoding: storagequeue.Text})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Send(t.Context(), &triggers.Message{Body: []byte("hello")}), s.Flush(t.Context())); err != nil {
		t.Error(err)
	}
	account.Close()
	if status := stop(); status != ExitOK {
		t.Errorf("status %d", status)
	}
	for want, args := range map[string][]string{
		"--queue: \"No\" cannot be the name of a queue": {"--queue", "No"},
		"--listen takes HOST:PORT":                      {"--listen", "10001"},
	} {
		if status, _, errs := command(t.Context(), nil, strings.NewReader(""), append([]string{"emulate", "storagequeue"}, args...)...); status != ExitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: status %d: %s", args, status, errs)
		}
	}
}
