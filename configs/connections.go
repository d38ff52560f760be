package configs

import (
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/readfile"
)

// Storage reports whether the connection is to an Azure Storage account.
func (c Connection) Storage() bool {
	return c.StorageAccount != "" || c.ConnectionString != "" && c.storageString()
}

// connectionParts returns the parts of a connection string, with their names in lower case.
func (c Connection) connectionParts() map[string]string {
	parts := make(map[string]string)
	for part := range strings.SplitSeq(string(c.ConnectionString), ";") {
		name, value, _ := strings.Cut(part, "=")
		parts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return parts
}

// storageString reports whether the connection string is for a storage account, and not for a
// namespace.
func (c Connection) storageString() bool {
	parts := c.connectionParts()
	for _, name := range []string{"defaultendpointsprotocol", "accountname", "queueendpoint", "usedevelopmentstorage", "blobendpoint"} {
		if parts[name] != "" {
			return parts["endpoint"] == ""
		}
	}
	return false
}

// ReadConnectionString returns the current connection string; one from a file is read again.
func (c Connection) ReadConnectionString() (string, error) {
	if c.connectionStringFile == "" {
		return string(c.ConnectionString), nil
	}
	return readfile.Value(c.connectionStringFile, "")
}

// namespaceName matches a namespace's host, also in the clouds of China and the US government.
var namespaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9](\.[a-z0-9-]+)+$`)

const (
	busForm     = "Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=...;SharedAccessKey=..."
	storageForm = "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=... (or QueueEndpoint=https://...;SharedAccessSignature=...)"
)

// checkAzure checks a connection to a namespace or a storage account.
func (c Connection) checkAzure(x *problems.Source, path string) {
	onlyFor(x, path, "NATS", serverOnly)
	switch {
	case c.Namespace != "":
		c.checkIdentity(x, path)
		if !namespaceName.MatchString(c.Namespace) {
			x.Wrong(path+".namespace", "%q is not the host of a namespace; write it as contoso.servicebus.windows.net", c.Namespace)
		}
		if _, port, err := net.SplitHostPort(c.Endpoint); c.Endpoint != "" && (err != nil || port == "") {
			x.Wrong(path+".endpoint", "%q is not an address; write HOST:PORT", c.Endpoint)
		}
		return
	case c.StorageAccount != "":
		c.checkIdentity(x, path)
		if !accountName.MatchString(c.StorageAccount) {
			x.Wrong(path+".storage_account", "%q is not the name of a storage account: use 3 to 24 lower-case letters and digits; put an address into endpoint", c.StorageAccount)
		}
		if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil) {
			x.Wrong(path+".endpoint", "this is not the address of an account's queues; write https://HOST, without a query; tokens are never sent unencrypted")
		}
		return
	}
	onlyFor(x, path, "namespace and storage_account", identityOnly)
	parts := c.connectionParts()
	switch {
	case c.Storage():
		named := parts["accountname"] != "" && parts["accountkey"] != ""
		signed := parts["queueendpoint"] != "" && parts["sharedaccesssignature"] != ""
		if !named && !signed && !strings.EqualFold(parts["usedevelopmentstorage"], "true") {
			x.Wrong(path+".connection_string", "this connection string of a storage account is incomplete: %s", storageForm)
		}
	case parts["endpoint"] == "":
		x.Wrong(path+".connection_string", "this is not a connection string of Service Bus, %s, or of a storage account, %s", busForm, storageForm)
	case !strings.HasPrefix(parts["endpoint"], "sb://") || parts["sharedaccesskey"] == "" && parts["sharedaccesssignature"] == "":
		x.Wrong(path+".connection_string", "this is not a connection string of Service Bus: %s", busForm)
	}
}

// accountName matches the names that Azure allows.
var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

func (c Connection) checkIdentity(x *problems.Source, path string) {
	if c.Identity == "certificate" && (c.Certificate == "" || c.ClientID == "" || c.TenantID == "") {
		x.Wrong(path, "identity: certificate needs certificate, client_id and tenant_id")
	}
	if c.Identity != "certificate" && c.Certificate != "" {
		x.Wrong(path+".certificate", "it goes with identity: certificate")
	}
}

// connectionOf returns the connection that a trigger names, or the only one of its kind.
func (x *completion) connectionOf(path string, name *string, kind string, fits func(Connection) bool) (Connection, bool) {
	if *name == "" {
		var fitting []string
		for _, n := range sortedNames(x.Connections) {
			if fits(x.Connections[n]) {
				fitting = append(fitting, n)
			}
		}
		switch len(fitting) {
		case 0:
			x.Wrong(path, "no connection to %s; add one to connections", kind)
			return Connection{}, false
		case 1:
			*name = fitting[0]
		default:
			x.Wrong(path, "set connection to one of: %s", strings.Join(fitting, ", "))
			return Connection{}, false
		}
	}
	c, found := x.Connections[*name]
	if !found {
		x.Wrong(path+".connection", "there is no connection %q%s", *name, problems.Hint(*name, sortedNames(x.Connections)))
		return c, false
	}
	if !fits(c) {
		x.Wrong(path+".connection", "connection %s is not a connection to %s", *name, kind)
		return c, false
	}
	return c, true
}
