package emulator

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"
)

// adminClient is the SDK's client, with requests to the emulator over HTTPS.
func (b *bed) adminClient() *admin.Client {
	b.t.Helper()
	s := httptest.NewTLSServer(b.Admin())
	b.t.Cleanup(s.Close)
	client := s.Client()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: client.Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}
	host := strings.TrimPrefix(s.URL, "https://")
	b.t.Cleanup(client.CloseIdleConnections)
	return must[*admin.Client](b.t)(admin.NewClientFromConnectionString(b.ConnectionString(host), &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: client}}))
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Keys: []Key{{Name: "all", Key: "s3cret", Manage: true}}})
	a := b.adminClient()
	made := must[admin.CreateQueueResponse](t)(a.CreateQueue(b.soon(), "orders", &admin.CreateQueueOptions{Properties: &admin.QueueProperties{
		LockDuration: to.Ptr("PT5S"), MaxDeliveryCount: to.Ptr(int32(3)), RequiresSession: to.Ptr(false), DefaultMessageTimeToLive: to.Ptr("P1D"),
	}}))
	if *made.LockDuration != "PT5S" || *made.MaxDeliveryCount != 3 || *made.DefaultMessageTimeToLive != "PT86400S" {
		t.Errorf("%+v", made.QueueProperties)
	}
	if _, err := a.CreateQueue(b.soon(), "orders", nil); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("%v; want a conflict", err)
	}
	if _, err := a.CreateQueue(b.soon(), "slow", &admin.CreateQueueOptions{Properties: &admin.QueueProperties{LockDuration: to.Ptr("PT6M")}}); err == nil || !strings.Contains(err.Error(), "five minutes") {
		t.Errorf("%v", err)
	}
	must[admin.CreateTopicResponse](t)(a.CreateTopic(b.soon(), "events", nil))
	must[admin.CreateSubscriptionResponse](t)(a.CreateSubscription(b.soon(), "events", "billing", &admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{
		ForwardTo: to.Ptr("orders"),
	}}))
	c := b.client()
	b.send(c, "events", "1")
	b.send(c, "orders", "2")
	counts := must[*admin.GetQueueRuntimePropertiesResponse](t)(a.GetQueueRuntimeProperties(b.soon(), "orders", nil))
	if counts.ActiveMessageCount != 2 || counts.DeadLetterMessageCount != 0 {
		t.Errorf("%+v", counts)
	}
	if got, err := a.GetQueue(b.soon(), "nowhere", nil); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	must[admin.DeleteQueueResponse](t)(a.DeleteQueue(b.soon(), "orders", nil))
	if _, err := a.DeleteQueue(b.soon(), "orders", nil); err == nil {
		t.Error("it was deleted twice")
	}
	r := must[*azservicebus.Receiver](t)(c.NewReceiverForQueue("orders", nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := r.ReceiveMessages(ctx, 1, nil); err == nil {
		t.Error("a deleted queue is received from")
	}
}

// A POST to an entity's messages sends a message, if the key has the claim Send.
func TestSendByHTTP(t *testing.T) {
	t.Parallel()
	keys := []Key{{Name: "send", Key: "s", Send: true}, {Name: "listen", Key: "l", Listen: true}}
	b := start(t, Options{Keys: keys})
	if err := b.CreateQueue("orders", QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(b.Admin())
	defer server.Close()
	post := func(key Key, path, properties, body string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		signed := "orders\n4102444800"
		mac := hmac.New(sha256.New, []byte(key.Key))
		mac.Write([]byte(signed))
		signature := url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		request.Header.Set("Authorization", "SharedAccessSignature sr=orders&se=4102444800&skn="+key.Name+"&sig="+signature)
		request.Header.Set("Content-Type", "text/plain")
		if properties != "" {
			request.Header.Set("BrokerProperties", properties)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	for _, c := range []struct {
		key                    Key
		path, properties, body string
		want                   int
		says                   string
	}{
		{keys[0], "/orders/messages", `{"MessageId": "m1", "Label": "new", "CorrelationId": "c", "TimeToLive": 60}`, "hello", 201, ""},
		{keys[0], "/orders/messages", `{"ScheduledEnqueueTimeUtc": "Fri, 31 Jan 2126 08:00:00 GMT"}`, "later", 201, ""},
		{keys[0], "/nowhere/messages", "", "", 404, "could not be found"},
		{keys[0], "/orders/messages", "{", "", 400, "BrokerProperties is no JSON object"},
		{keys[0], "/orders/messages", `{"ScheduledEnqueueTimeUtc": "tomorrow"}`, "", 400, "ScheduledEnqueueTimeUtc is &#34;tomorrow&#34;"},
		{keys[1], "/orders/messages", "", "", 401, "the Send claim is required"},
	} {
		if status, text := post(c.key, c.path, c.properties, c.body); status != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%s %s: %d, %s; want %d, %s", c.path, c.properties, status, text, c.want, c.says)
		}
	}
	if u, err := b.Counts("orders"); err != nil || u.Active != 1 || u.Scheduled != 1 {
		t.Errorf("the queue has %+v, %v", u, err)
	}
}
