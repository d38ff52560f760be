package cli

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

func TestEmulateServiceBus(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan int, 1)
	var errs strings.Builder
	go func() {
		ended <- Command(ctx, []string{"emulate", "servicebus", "--listen", "127.0.0.1:0", "--queue", "orders", "--session-queue", "carts", "--subscription", "events/billing", "--subscription", "events/stock", "--session-subscription", "visits/open"},
			&IO{Out: w, Err: &errs})
		_ = w.Close()
	}()
	out, connection := "", ""
	buffer := make([]byte, 4096)
	for connection == "" {
		n, err := r.Read(buffer)
		if err != nil {
			t.Fatalf("%v: %s%s", err, out, errs.String())
		}
		out += string(buffer[:n])
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "Endpoint=") && strings.HasSuffix(line, "\n") {
				connection = strings.TrimSpace(line)
			}
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	for _, want := range []string{"queue orders", "queue carts", "subscription events/stock", "subscription visits/open"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	client, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := client.NewSender("events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.SendMessage(ctx, &azservicebus.Message{Body: []byte("hello")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"billing", "stock"} {
		receiver, err := client.NewReceiverForSubscription("events", name, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := receiver.ReceiveMessages(ctx, 1, nil)
		if err != nil || len(got) != 1 || string(got[0].Body) != "hello" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if err := client.Close(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if status := <-ended; status != ExitOK {
		t.Errorf("status %d: %s", status, errs.String())
	}
}

func TestEmulateServiceBusMistakes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for name, test := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"a lock":          {[]string{"--queue", "q", "--lock", "6m"}, ExitUsage, "at most 5m"},
		"an address":      {[]string{"--queue", "q", "--listen", "5672"}, ExitUsage, "HOST:PORT"},
		"an address used": {[]string{"--queue", "q", "--listen", l.Addr().String()}, ExitFailed, "Choose another address"},
		"a name":          {[]string{"--queue", "a b"}, ExitFailed, "not a name of a queue"},
		"a subscription":  {[]string{"--subscription", "billing"}, ExitUsage, "TOPIC/NAME"},
		"twice":           {[]string{"--queue", "q", "--session-queue", "q"}, ExitFailed, "exists already"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			status := Command(t.Context(), append([]string{"emulate", "servicebus"}, test.args...), &IO{Out: &out, Err: &errs})
			if status != test.status || !strings.Contains(errs.String(), test.want) {
				t.Errorf("status %d: %s", status, errs.String())
			}
		})
	}
}
