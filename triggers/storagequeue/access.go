package storagequeue

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
)

// Access describes how to connect to a storage account: with a connection string, or with the
// address of its queues and an identity.
type Access struct {
	// ConnectionString is called again when a key or signature is refused, so that a
	// changed secret takes effect. If it is nil, Endpoint and Credential are used.
	ConnectionString func() (string, error)
	// Endpoint is the address of the account's queues, such as
	// https://contoso.queue.core.windows.net. It must be https, because the credential's tokens
	// are never sent unencrypted.
	Endpoint   string
	Credential azcore.TokenCredential
	// TLS configures the encryption; nil uses the machine's root certificates.
	TLS *tls.Config
}

// Account is a storage account. Its triggers and senders share its HTTP connections. It is safe
// for concurrent use.
type Account struct {
	access Access
	web    *http.Transport

	mu     sync.Mutex
	wakers map[*reach]func() // of the triggers, by queue
}

// maxConnections bounds the HTTP connections to an account: one per request in flight. A
// connection is closed after being idle for idleLimit.
const (
	maxConnections = 512
	idleLimit      = 30 * time.Second
)

// NewAccount returns an account. It sends no request.
func NewAccount(a Access) *Account {
	web := http.DefaultTransport.(*http.Transport).Clone()
	web.TLSClientConfig = a.TLS
	web.MaxIdleConns, web.MaxIdleConnsPerHost, web.MaxConnsPerHost = maxConnections, maxConnections, maxConnections
	web.IdleConnTimeout = idleLimit
	web.ResponseHeaderTimeout = tryLimit
	web.DisableCompression = true // responses are small, and often base64
	return &Account{access: a, web: web, wakers: make(map[*reach]func())}
}

// Close closes the connections. Callers close the triggers and senders first.
func (a *Account) Close() { a.web.CloseIdleConnections() }

// wakeTriggers makes the triggers of a queue receive at once, because a message was sent to it.
func (a *Account) wakeTriggers(queue string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for q, wake := range a.wakers {
		if q.name == queue {
			wake()
		}
	}
}

// client is a client of one queue, with the secret that it uses.
type client struct {
	*azqueue.QueueClient
	secret string
}

// again configures how the SDK retries settlements and sends. If Retry-After is longer than
// maxDelay, the SDK returns an error at once, and the caller waits.
var again = policy.RetryOptions{MaxRetries: 3, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: 2 * time.Second}

// tryLimit bounds the wait for a response. The transport enforces it, which is cheaper than
// a context per try.
const tryLimit = 10 * time.Second

// client returns a new client of a queue. No error contains the secret.
func (a *Account) client(queue string) (*client, error) {
	o := &azqueue.ClientOptions{}
	o.Retry = again
	o.Telemetry.ApplicationID = "drover"
	o.Transport = &http.Client{Transport: a.web}
	o.PerCallPolicies = []policy.Policy{withoutContent{}}
	if a.access.ConnectionString == nil {
		c, err := azqueue.NewQueueClient(strings.TrimSuffix(a.access.Endpoint, "/")+"/"+queue, a.access.Credential, o)
		if err != nil {
			return nil, fmt.Errorf("the storage account at %s: %w", a.access.Endpoint, err)
		}
		return &client{QueueClient: c}, nil
	}
	secret, err := a.access.ConnectionString()
	if err != nil {
		return nil, fmt.Errorf("the connection string: %w", err)
	}
	c, err := azqueue.NewQueueClientFromConnectionString(expand(secret), queue, o)
	if err != nil {
		var malformed *url.Error
		if errors.As(err, &malformed) { // it would quote the signature
			err = malformed.Err
		}
		return nil, fmt.Errorf("the connection string: %w", err)
	}
	return &client{c, secret}, nil
}

// expand replaces the short form of a connection string for emulators.
func expand(connection string) string {
	for part := range strings.SplitSeq(connection, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, "UseDevelopmentStorage") && strings.EqualFold(value, "true") {
			return developmentStorage
		}
	}
	return strings.TrimSpace(connection)
}

// developmentStorage is the long form of UseDevelopmentStorage=true. The key is published, and the
// same for all emulators.
const developmentStorage = "DefaultEndpointsProtocol=http;AccountName=" + developmentAccount + ";" +
	"AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;" +
	"QueueEndpoint=http://127.0.0.1:10001/" + developmentAccount + ";"

// developmentAccount is the account of all emulators.
const developmentAccount = "devstoreaccount1"

// withoutContent removes the body from updates. Otherwise the SDK would send the unchanged body
// with each renewal. An update whose context has newContent keeps its body.
type withoutContent struct{}

type newContent struct{}

// Do implements policy.Policy.
func (withoutContent) Do(r *policy.Request) (*http.Response, error) {
	raw := r.Raw()
	if raw.Method != http.MethodPut || !strings.Contains(raw.URL.Path, "/messages/") || raw.Context().Value(newContent{}) != nil {
		return r.Next()
	}
	if err := r.SetBody(nil, ""); err != nil {
		return nil, err
	}
	raw.Body, raw.ContentLength = nil, 0
	raw.Header.Del("Content-Length")
	return r.Next()
}

// reach is a queue of an account.
type reach struct {
	account *Account
	name    string
	client  atomic.Pointer[client]
}

func (a *Account) reach(queue string) (*reach, error) {
	c, err := a.client(queue)
	if err != nil {
		return nil, err
	}
	r := &reach{account: a, name: queue}
	r.client.Store(c)
	return r, nil
}

// address returns the queue's address without a signature.
func (r *reach) address() string {
	address, _, _ := strings.Cut(r.client.Load().URL(), "?")
	return address
}

// refreshed replaces the client if the secret has changed since used was created.
func (r *reach) refreshed(used *client) bool {
	if r.account.access.ConnectionString == nil {
		return false
	}
	if now := r.client.Load(); now != used {
		return true
	}
	c, err := r.account.client(r.name)
	if err != nil || c.secret == used.secret {
		return false
	}
	r.client.Store(c)
	return true
}
