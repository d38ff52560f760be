// Package namespace provides access to a Service Bus namespace: clients, rights, locks and errors.
package namespace

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"
)

// Access describes how to connect to a namespace: with a connection string, or with the namespace's
// name and an identity.
type Access struct {
	// ConnectionString is called for each connection, so that a changed secret takes
	// effect. If it is nil, Namespace and Credential are used.
	ConnectionString func() (string, error)
	// Namespace is NAME.servicebus.windows.net.
	Namespace  string
	Credential azcore.TokenCredential
	// Endpoint is HOST:PORT, if it differs from the namespace's name. It also serves the
	// admin API; if PORT is 5671, port 443 of the host does.
	Endpoint string
	// TLS configures the encryption; nil uses the machine's root certificates.
	TLS *tls.Config
}

// again configures how the SDK retries requests other than settlements. The SDK's default of 4 s
// before the first retry is longer than most outages.
var again = azservicebus.RetryOptions{MaxRetries: 3, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: time.Second}

// Client returns a new client. No error contains the connection string.
func (a *Access) Client() (*azservicebus.Client, error) {
	o := &azservicebus.ClientOptions{RetryOptions: again, ApplicationID: "drover"}
	o.NewWebSocketConn = a.dial(false)
	if a.ConnectionString == nil {
		c, err := azservicebus.NewClient(a.Namespace, a.Credential, o)
		if err != nil {
			return nil, fmt.Errorf("the namespace %s: %w", a.Namespace, err)
		}
		return c, nil
	}
	connection, err := a.ConnectionString()
	if err != nil {
		return nil, fmt.Errorf("the connection string: %w", err)
	}
	_, emulated := developmentEmulator(connection)
	o.NewWebSocketConn = a.dial(emulated)
	c, err := azservicebus.NewClientFromConnectionString(connection, o)
	if err != nil {
		return nil, fmt.Errorf("the connection string: %w", err)
	}
	return c, nil
}

// AdminLimit bounds one request to the admin API.
const AdminLimit = 10 * time.Second

// Admin returns a new client of the admin API; done closes its connections.
func (a *Access) Admin() (c *admin.Client, done func(), err error) {
	web := http.DefaultTransport.(*http.Transport).Clone()
	web.TLSClientConfig = a.TLS
	web.MaxIdleConnsPerHost = 1
	web.IdleConnTimeout = time.Second // requests are rare
	if a.Endpoint != "" {
		to := a.Endpoint
		if host, port, err := net.SplitHostPort(to); err == nil && port == "5671" {
			to = net.JoinHostPort(host, "443")
		}
		web.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, to)
		}
	}
	o := &admin.ClientOptions{}
	o.Retry = policy.RetryOptions{MaxRetries: 1, RetryDelay: 100 * time.Millisecond, TryTimeout: AdminLimit / 2}
	o.Telemetry.ApplicationID = "drover"
	o.Transport = &http.Client{Transport: web}
	if a.ConnectionString == nil {
		c, err = admin.NewClient(a.Namespace, a.Credential, o)
		return c, web.CloseIdleConnections, err
	}
	connection, err := a.ConnectionString()
	if err != nil {
		return nil, nil, err
	}
	if host, emulated := developmentEmulator(connection); emulated {
		o.Transport = &http.Client{Transport: plain{web, host}}
	}
	c, err = admin.NewClientFromConnectionString(connection, o)
	return c, web.CloseIdleConnections, err
}

// developmentEmulator returns the address of the emulator in a connection string.
func developmentEmulator(connection string) (address string, ok bool) {
	for part := range strings.SplitSeq(connection, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch strings.ToLower(name) {
		case "endpoint":
			address = strings.Trim(strings.TrimPrefix(value, "sb://"), "/")
		case "usedevelopmentemulator":
			ok = strings.EqualFold(value, "true")
		}
	}
	return address, ok
}

// plain sends requests to an emulator without TLS, on its only port. The SDK always uses https and
// port 443.
type plain struct {
	http.RoundTripper
	address string
}

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", p.address
	return p.RoundTripper.RoundTrip(r)
}

// A Right is a permission of a key or an identity, in Azure's terms.
type Right struct{ Claim, Role string }

// The rights of Service Bus.
var (
	Listen = Right{"Listen", "Azure Service Bus Data Receiver"}
	Send   = Right{"Send", "Azure Service Bus Data Sender"}
	Manage = Right{"Manage", "Azure Service Bus Data Owner"}
)

// Explain adds advice to an error; needs is the right that the request required.
func Explain(err error, needs Right) error {
	text := strings.ToLower(err.Error())
	var e *azservicebus.Error
	code := azservicebus.Code("")
	if errors.As(err, &e) {
		code = e.Code
	}
	switch {
	case TooLarge(err):
		return fmt.Errorf("%w: a message is larger than the entity allows now (MaxMessageSizeInKilobytes); raise that to receive it", err)
	case strings.Contains(text, "expiredtoken"):
		return fmt.Errorf("%w; the signature has expired, or this machine's clock is wrong", err)
	case code == azservicebus.CodeUnauthorizedAccess:
		return fmt.Errorf("%w; the key or identity needs the right %s (%s)", err, needs.Claim, needs.Role)
	case code == azservicebus.CodeNotFound, strings.Contains(text, "amqp:not-found"):
		return fmt.Errorf("%w; check the name; create: true creates it", err)
	case strings.Contains(text, "entity-disabled"):
		return fmt.Errorf("%w; it is disabled: set its status to Active", err)
	case strings.Contains(text, "an entity that requires sessions"):
		return fmt.Errorf("%w; set sessions: true", err)
	case strings.Contains(text, "does not require sessions"):
		return fmt.Errorf("%w; remove sessions, or recreate the entity with sessions", err)
	}
	return err
}

// OrMissing returns err. If err is nil, it returns an error that the entity does not exist.
func OrMissing(err error) error {
	if err == nil {
		return errors.New("it is not there")
	}
	return err
}
