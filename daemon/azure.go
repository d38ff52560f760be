package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/servicebus"
	"github.com/drover-run/drover/triggers/storagequeue"
)

// busAccess is the way into a Service Bus namespace that a connection describes.
func busAccess(name string, c configs.Connection) (*servicebus.Access, error) {
	out := &servicebus.Access{Namespace: c.Namespace, Endpoint: c.Endpoint}
	var err error
	if out.TLS, err = ownRoots(name, c); err != nil {
		return nil, err
	}
	if c.Namespace == "" {
		out.ConnectionString = c.ReadConnectionString
		return out, nil
	}
	out.Credential, err = identity(name, c)
	return out, err
}

// openServiceBus opens the source of a function.
func (p *parts) openServiceBus(ctx context.Context, settings configs.Function, memory *triggers.Account, log *slog.Logger) (triggers.Trigger, error) {
	bus := settings.Trigger.ServiceBus
	access, err := busAccess(bus.Connection, p.cfg.Connections[bus.Connection])
	if err != nil {
		return nil, err
	}
	return servicebus.Open(ctx, servicebus.Config{
		Access: access, Queue: bus.Queue, Topic: bus.Topic, Subscriptions: bus.Subscription, Create: bus.Create,
		Sessions: bus.Sessions, MaxSessions: bus.MaxSessions, SessionIdle: bus.SessionIdle.D(), SessionTurn: bus.SessionTurn.D(),
		MaxLockRenewal: bus.MaxLockRenewal.D(), MaxIdle: bus.MaxIdle.D(), Prefetch: int(settings.Prefetch),
		Scheduled: settings.Retry.Mode == "scheduled", MaxAttempts: settings.Retry.MaxAttempts, Memory: memory, Log: log,
	})
}

func busSender(access *servicebus.Access, entity string) dispatch.OpenSender {
	return func(context.Context) (dispatch.Sender, func() error, error) {
		s, err := servicebus.NewSender(access, entity)
		if err != nil {
			return nil, nil, err
		}
		return s, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			defer cancel()
			return s.Close(ctx)
		}, nil
	}
}

// storageAccount is the storage account that a connection describes.
func storageAccount(name string, c configs.Connection) (*storagequeue.Account, error) {
	access := storagequeue.Access{Endpoint: c.Endpoint}
	var err error
	if access.TLS, err = ownRoots(name, c); err != nil {
		return nil, err
	}
	if c.StorageAccount == "" {
		access.ConnectionString = c.ReadConnectionString
		return storagequeue.NewAccount(access), nil
	}
	if access.Endpoint == "" {
		access.Endpoint = "https://" + c.StorageAccount + ".queue.core.windows.net"
	}
	if access.Credential, err = identity(name, c); err != nil {
		return nil, err
	}
	return storagequeue.NewAccount(access), nil
}

// openStorageQueue opens the source of a function, its account, and the ledger.
func (p *parts) openStorageQueue(ctx context.Context, settings configs.Function, memory *triggers.Account, log *slog.Logger) (triggers.Trigger, error) {
	q := settings.Trigger.StorageQueue
	account, err := p.account(q.Connection)
	if err != nil {
		return nil, err
	}
	if p.ledger == nil {
		if err := os.MkdirAll(p.cfg.DataDir, dataDirMode); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
		if p.ledger, err = storagequeue.OpenLedger(filepath.Join(p.cfg.DataDir, "storagequeue.db")); err != nil {
			return nil, err
		}
	}
	return storagequeue.Open(ctx, storagequeue.Config{
		Account: account, Queue: q.Queue, Encoding: storagequeue.Encoding(q.Encoding), Create: q.Create,
		PoisonQueue: q.PoisonQueue, PoisonFormat: storagequeue.PoisonFormat(q.PoisonFormat),
		Lease: q.Lease.D(), MaxPollInterval: q.MaxPollInterval.D(),
		MaxAttempts: settings.Retry.MaxAttempts, MaxDequeueCount: int64(q.MaxDequeueCount), Prefetch: int(settings.Prefetch),
		Ledger: p.ledger, Memory: memory, Log: log,
	})
}

// account is the storage account of a connection: triggers and outputs share it,
// and its HTTP connections.
func (p *parts) account(connection string) (*storagequeue.Account, error) {
	if a := p.accounts[connection]; a != nil {
		return a, nil
	}
	if p.keepsConnection(connection) && p.old.accounts[connection] != nil {
		p.accounts[connection] = p.old.accounts[connection]
		return p.accounts[connection], nil
	}
	a, err := storageAccount(connection, p.cfg.Connections[connection])
	if err == nil {
		p.accounts[connection] = a
	}
	return a, err
}

// storageSender sends to a storage queue.
func storageSender(account *storagequeue.Account, queue, encoding string, delay, ttl time.Duration) dispatch.OpenSender {
	return func(context.Context) (dispatch.Sender, func() error, error) {
		s, err := storagequeue.NewSender(storagequeue.SenderConfig{
			Account: account, Queue: queue, Encoding: storagequeue.Encoding(encoding), Delay: delay, TimeToLive: ttl,
		})
		if err != nil {
			return nil, nil, err
		}
		return s, func() error { return nil }, nil
	}
}

// ownRoots are a connection's, in place of the machine's; nil without.
func ownRoots(name string, c configs.Connection) (*tls.Config, error) {
	if c.TLS == nil || c.TLS.CA == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(c.TLS.CA)) {
		return nil, fmt.Errorf("connection %s: tls.ca has no PEM certificate", name)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func identity(name string, c configs.Connection) (azcore.TokenCredential, error) {
	credential, err := credentialOf(c)
	if err != nil {
		return nil, fmt.Errorf("connection %s, identity %s: %w", name, c.Identity, err)
	}
	return credential, nil
}

// credentialOf is who drover is to Azure. No token is asked for yet.
func credentialOf(c configs.Connection) (azcore.TokenCredential, error) {
	switch c.Identity {
	case "managed":
		o := &azidentity.ManagedIdentityCredentialOptions{}
		if c.ClientID != "" {
			o.ID = azidentity.ClientID(c.ClientID)
		}
		return azidentity.NewManagedIdentityCredential(o)
	case "workload":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientID: c.ClientID, TenantID: c.TenantID})
	case "certificate":
		certs, key, err := azidentity.ParseCertificates([]byte(c.Certificate), nil)
		if err != nil {
			return nil, errors.New("certificate has no PEM certificate with its key, without a password")
		}
		return azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key, nil)
	case "cli":
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: c.TenantID})
	}
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{TenantID: c.TenantID})
}
