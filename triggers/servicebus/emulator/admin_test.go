package emulator

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"
)

// adminClient is the SDK's, whose requests end at the emulator, by HTTPS.
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
