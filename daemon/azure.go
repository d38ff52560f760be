package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/triggers/servicebus"
)

// busAccess is the way into a Service Bus namespace that a connection describes.
func busAccess(name string, c configs.Connection) (*servicebus.Access, error) {
	out := &servicebus.Access{Namespace: c.Namespace, Endpoint: c.Endpoint}
	if c.TLS != nil && c.TLS.CA != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(c.TLS.CA)) {
			return nil, fmt.Errorf("connection %s: tls.ca has no PEM certificate", name)
		}
		out.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	if c.Namespace == "" {
		out.ConnectionString = c.ReadConnectionString
		return out, nil
	}
	var err error
	if out.Credential, err = identity(c); err != nil {
		return nil, fmt.Errorf("connection %s, identity %s: %w", name, c.Identity, err)
	}
	return out, nil
}

// identity is who drover is to Azure. No token is asked for yet.
func identity(c configs.Connection) (azcore.TokenCredential, error) {
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
