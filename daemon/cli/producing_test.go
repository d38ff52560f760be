package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/sdktest"
)

// The functions below are in docs/producing.md.

func sendToNATS(ctx context.Context, delay time.Duration) error {
	client, err := nats.Connect(os.Getenv("NATS_URL"), nats.Token(os.Getenv("NATS_TOKEN")))
	if err != nil {
		return err
	}
	defer client.Close()
	stream, err := jetstream.New(client)
	if err != nil {
		return err
	}
	now := &nats.Msg{Subject: "orders", Data: []byte(`{"id": 7}`), Header: nats.Header{"Content-Type": {"application/json"}}}
	if _, err := stream.PublishMsg(ctx, now, jetstream.WithMsgID("order-7")); err != nil {
		return err
	}
	later := &nats.Msg{Subject: "orders-SCHEDULED." + uuid.NewString(), Data: []byte(`{"id": 8}`), Header: nats.Header{"Content-Type": {"application/json"}}}
	_, err = stream.PublishMsg(ctx, later, jetstream.WithScheduleAt(time.Now().Add(delay)), jetstream.WithScheduleTarget("orders"))
	return err
}

func sendToServiceBus(ctx context.Context, delay time.Duration) error {
	client, err := azservicebus.NewClientFromConnectionString(os.Getenv("SERVICEBUS_CONNECTION"), nil)
	if err != nil {
		return err
	}
	defer client.Close(ctx)
	sender, err := client.NewSender("orders", nil)
	if err != nil {
		return err
	}
	kind, first, second := "application/json", "order-7", "order-8"
	now := &azservicebus.Message{Body: []byte(`{"id": 7}`), ContentType: &kind, MessageID: &first}
	if err := sender.SendMessage(ctx, now, nil); err != nil {
		return err
	}
	later := &azservicebus.Message{Body: []byte(`{"id": 8}`), ContentType: &kind, MessageID: &second}
	_, err = sender.ScheduleMessages(ctx, []*azservicebus.Message{later}, time.Now().Add(delay), nil)
	return err
}

func sendToStorageQueue(ctx context.Context, delay time.Duration) error {
	queue, err := azqueue.NewQueueClientFromConnectionString(os.Getenv("AzureWebJobsStorage"), "orders", nil)
	if err != nil {
		return err
	}
	if _, err := queue.EnqueueMessage(ctx, base64.StdEncoding.EncodeToString([]byte(`{"id": 7}`)), nil); err != nil {
		return err
	}
	hidden := int32(delay.Seconds())
	_, err = queue.EnqueueMessage(ctx, base64.StdEncoding.EncodeToString([]byte(`{"id": 8}`)), &azqueue.EnqueueMessageOptions{VisibilityTimeout: &hidden})
	return err
}

func sendToDrover(ctx context.Context, order, parameters string) error {
	url := os.Getenv("DROVER_URL") + "/v1/functions/orders/messages?" + parameters
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(order))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("DROVER_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return err
}

// producer is a program on the page, in one language, that sends to a function.
type producer struct {
	heading, language, function string
	at                          int // its number among the programs in this language below the heading
}

// delay replaces the delay of one minute in the programs.
const delay = 2 * time.Second

var (
	aMinute = regexp.MustCompile(`\b60`)
	order7  = regexp.MustCompile(`\b7\b`)
	order8  = regexp.MustCompile(`\b8\b`)
	inApp   = regexp.MustCompile(`python: \{path: [^}]*\}`)
)

// program returns a program of docs/producing.md with this delay for the second message, and with other
// order numbers.
func (p producer) program(t *testing.T, page string, first, second int) string {
	t.Helper()
	_, section, found := strings.Cut(page, "\n## "+p.heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split(section, "```"+p.language+"\n")
	if !found || len(parts) < p.at+2 {
		t.Fatalf("the page has no program for %+v", p)
	}
	code, _, _ := strings.Cut(parts[p.at+1], "```")
	code = order8.ReplaceAllString(order7.ReplaceAllString(code, fmt.Sprint(first)), fmt.Sprint(second))
	return aMinute.ReplaceAllString(code, fmt.Sprint(delay.Seconds()))
}

// run runs the program.
func (p producer) run(t *testing.T, page string, first, second int) {
	t.Helper()
	switch p.language {
	case "go":
		if err := goProducers[p.heading](t.Context()); err != nil {
			t.Fatal(err)
		}
	case "bash":
		cmd := exec.CommandContext(t.Context(), "bash", "-euc", p.program(t, page, first, second))
		if strings.Contains(cmd.Args[2], "nats --server") {
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(sdktest.Natscli(t))+":"+os.Getenv("PATH"))
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	default:
		sdktest.RunText(t, p.language, p.program(t, page, first, second))
	}
}

// goProducers call the Go programs. Programs for the same function have different orders.
var goProducers = map[string]func(ctx context.Context) error{
	"NATS":           func(ctx context.Context) error { return sendToNATS(ctx, delay) },
	"Service Bus":    func(ctx context.Context) error { return sendToServiceBus(ctx, delay) },
	"Storage queues": func(ctx context.Context) error { return sendToStorageQueue(ctx, delay) },
	"The admin API": func(ctx context.Context) error {
		return errors.Join(sendToDrover(ctx, `{"id": 5}`, "id=order-5"), sendToDrover(ctx, `{"id": 6}`, "delay="+delay.String()))
	},
}

// arrivals are the orders that functions have received.
type arrivals struct {
	mu  sync.Mutex
	all map[string]arrival // by function and order
}

type arrival struct {
	*triggers.Message
	at time.Time
}

// add records a message for a function.
func (a *arrivals) add(function string, m *triggers.Message) error {
	var order struct{ ID int }
	if err := json.Unmarshal(m.Body, &order); err != nil {
		return fmt.Errorf("%q: %w", m.Body, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[fmt.Sprint(function, order.ID)] = arrival{m, time.Now()}
	return nil
}

// wait waits for an order.
func (a *arrivals) wait(t *testing.T, log *printed, function string, order int) (found arrival) {
	t.Helper()
	until(t, log, fmt.Sprintf("order %d of %s is received", order, function), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		found = a.all[fmt.Sprint(function, order)]
		return found.Message != nil
	})
	return found
}

// The programs of docs/producing.md send the described messages to a daemon with the configuration on
// the page.
func TestProducers(t *testing.T) {
	text, err := os.ReadFile("../../docs/producing.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	source, err := os.ReadFile("producing_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(page, "```go\n")[1:] {
		if code, _, _ := strings.Cut(part, "```"); !strings.Contains(string(source), code) {
			t.Errorf("this program is not in the test:\n%s", code)
		}
	}
	_, config, _ := strings.Cut(page, "```yaml\n")
	config, _, _ = strings.Cut(config, "```")
	port := freePort(t)
	for _, change := range [][2]string{{"127.0.0.1:7070", port}, {"127.0.0.1:4222", "127.0.0.1:0"}} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the configuration of the page lacks %s", change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	functions := 0
	config = inApp.ReplaceAllStringFunc(config, func(string) string {
		functions++
		return "go: " + []string{"orders", "bus-orders", "stored-orders"}[functions-1]
	})
	_, bus := namespace(t)
	_, busAddress, _ := strings.Cut(bus, "Endpoint=sb://")
	busAddress, _, _ = strings.Cut(busAddress, ";")
	account, store := storage(t)
	if err := account.CreateQueue("orders"); err != nil {
		t.Fatal(err)
	}
	queue, err := azqueue.NewQueueClientFromConnectionString(store, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"DROVER_TOKEN": "0123456789abcdef0123456789abcdef", "SERVICEBUS_CONNECTION": bus, "AzureWebJobsStorage": store,
		"DROVER_URL": "http://" + port, "QUEUE_URL": queue.URL(), "SAS": "sig=x",
		"NAMESPACE_URL": "http://" + busAddress, "KEY_NAME": "RootManageSharedAccessKey", "KEY": "emulator",
	} {
		t.Setenv(name, value)
	}
	got := arrivals{all: make(map[string]arrival)}
	funcs := make(handlers.Funcs)
	for _, name := range []string{"orders", "bus-orders", "stored-orders"} {
		funcs[name] = func(_ context.Context, m *triggers.Message) ([]byte, error) { return nil, got.add(name, m) }
	}
	dir := write(t, map[string]string{"drover.yaml": config})
	log, stop := startWithFuncs(t, funcs, "run", filepath.Join(dir, "drover.yaml"))
	log.WaitFor(t, `"running"`)
	text, err = os.ReadFile(filepath.Join(dir, ".drover", "nats-local", "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var client struct{ URL, Token string }
	if err := json.Unmarshal(text, &client); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATS_URL", client.URL)
	t.Setenv("NATS_TOKEN", client.Token)
	if token, err := os.ReadFile(filepath.Join(dir, ".drover", "nats-local", "token")); err != nil || strings.TrimSpace(string(token)) != client.Token {
		t.Errorf("the page names a file with the token: %q, %v", token, err)
	}
	producer{"NATS", "bash", "orders", 0}.run(t, page, 0, 0)
	t.Run("all", func(t *testing.T) {
		for i, p := range []producer{
			{"NATS", "python", "orders", 0}, {"NATS", "js", "orders", 0}, {"NATS", "go", "orders", 0}, {"NATS", "bash", "orders", 1},
			{"Service Bus", "python", "bus-orders", 0}, {"Service Bus", "js", "bus-orders", 0}, {"Service Bus", "go", "bus-orders", 0}, {"Service Bus", "bash", "bus-orders", 0},
			{"Storage queues", "python", "stored-orders", 0}, {"Storage queues", "js", "stored-orders", 0}, {"Storage queues", "go", "stored-orders", 0}, {"Storage queues", "bash", "stored-orders", 0},
			{"The admin API", "bash", "orders", 0}, {"The admin API", "python", "orders", 0}, {"The admin API", "js", "orders", 0}, {"The admin API", "go", "orders", 0},
		} {
			t.Run(p.heading+"/"+p.language, func(t *testing.T) {
				t.Parallel()
				first, second := 100+2*i, 101+2*i
				if p.language == "go" {
					first, second = 7, 8
					if p.heading == "The admin API" {
						first, second = 5, 6
					}
				}
				began := time.Now()
				p.run(t, page, first, second)
				now, later := got.wait(t, log, p.function, first), got.wait(t, log, p.function, second)
				// A time rounded to seconds is up to a second early.
				if later.at.Before(began.Add(delay - time.Second)) {
					t.Errorf("sent at %v, and received at %v", began, later.at)
				}
				if p.function == "stored-orders" {
					return
				}
				if want := fmt.Sprint("order-", first); now.ID != want {
					t.Errorf("the ID is %s, want %s", now.ID, want)
				}
				for _, m := range []arrival{now, later} {
					if kind := m.Property(triggers.ContentType); kind != "application/json" {
						t.Errorf("the content type is %q", kind)
					}
				}
			})
		}
	})
	if status := stop(); status != ExitOK {
		t.Errorf("status %d", status)
	}
	if t.Failed() {
		t.Log(log)
	}
}
