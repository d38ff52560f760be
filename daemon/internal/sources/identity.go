package sources

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/drover-run/drover/configs"
)

// This file has what connections to Azure have in common.

// ownRoots returns a TLS configuration that trusts only a connection's own root certificates; nil
// if the connection has none, and the system's are used.
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

// azureCredential returns the identity that a connection names. It requests no token yet.
func azureCredential(name string, c configs.Connection) (azcore.TokenCredential, error) {
	credential, err := newCredential(c)
	if err != nil {
		return nil, fmt.Errorf("connection %s, identity %s: %w", name, c.Identity, err)
	}
	return credential, nil
}

func newCredential(c configs.Connection) (azcore.TokenCredential, error) {
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
