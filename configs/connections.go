package configs

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Embedded reports whether the connection is to the server in this process.
func (c Connection) Embedded() bool { return len(c.NATS) == 1 && c.NATS[0] == "embedded" }

// ServiceBus reports whether the connection is to an Azure Service Bus namespace.
func (c Connection) ServiceBus() bool {
	return c.Namespace != "" || c.ConnectionString != "" && !c.storageString()
}

// Storage reports whether the connection is to an Azure Storage account.
func (c Connection) Storage() bool {
	return c.StorageAccount != "" || c.ConnectionString != "" && c.storageString()
}

// connectionParts are a connection string's, with their names in lower case.
func (c Connection) connectionParts() map[string]string {
	parts := make(map[string]string)
	for part := range strings.SplitSeq(string(c.ConnectionString), ";") {
		name, value, _ := strings.Cut(part, "=")
		parts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return parts
}

// storageString tells a storage account's connection string from a namespace's.
func (c Connection) storageString() bool {
	parts := c.connectionParts()
	for _, name := range []string{"defaultendpointsprotocol", "accountname", "queueendpoint", "usedevelopmentstorage", "blobendpoint"} {
		if parts[name] != "" {
			return parts["endpoint"] == ""
		}
	}
	return false
}

// ReadConnectionString is the connection string as it is now: one from a file is
// read again.
func (c Connection) ReadConnectionString() (string, error) {
	if c.connectionStringFile == "" {
		return string(c.ConnectionString), nil
	}
	return fileValue(c.connectionStringFile, "")
}

// The keys of a connection that are for one kind.
var (
	natsOnly     = []string{"credentials", "nkey", "token", "user", "password", "tls.cert", "tls.key", "tls.server_name", "listen", "sync", "max_store"}
	identityOnly = []string{"identity", "client_id", "tenant_id", "certificate", "endpoint"}
)

// only notes keys that are for another kind.
func (x *completion) only(path, kind string, keys []string) {
	for _, key := range keys {
		if at, given := x.where[path+"."+key]; given {
			x.problem(at, "%s.%s: this key is only for %s; remove it", path, key, kind)
		}
	}
}

// namespaceName is a namespace's host, also in the clouds of China and the US
// government.
var namespaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9](\.[a-z0-9-]+)+$`)

const (
	busForm     = "Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=...;SharedAccessKey=..."
	storageForm = "DefaultEndpointsProtocol=https;AccountName=...;AccountKey=... (or QueueEndpoint=https://...;SharedAccessSignature=...)"
)

// azureConnection checks one to a namespace or a storage account.
func (x *completion) azureConnection(path string, c Connection) {
	x.only(path, "NATS", natsOnly)
	switch {
	case c.Namespace != "":
		x.identity(path, c)
		if !namespaceName.MatchString(c.Namespace) {
			x.wrong(path+".namespace", "%q is not the host of a namespace; write it as contoso.servicebus.windows.net", c.Namespace)
		}
		if _, port, err := net.SplitHostPort(c.Endpoint); c.Endpoint != "" && (err != nil || port == "") {
			x.wrong(path+".endpoint", "%q is not an address; write HOST:PORT", c.Endpoint)
		}
		return
	case c.StorageAccount != "":
		x.identity(path, c)
		if !accountName.MatchString(c.StorageAccount) {
			x.wrong(path+".storage_account", "%q is not the name of a storage account: use 3 to 24 lower-case letters and digits; put an address into endpoint", c.StorageAccount)
		}
		if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil) {
			x.wrong(path+".endpoint", "this is not the address of an account's queues; write https://HOST, without a query; tokens are never sent unencrypted")
		}
		return
	}
	x.only(path, "namespace and storage_account", identityOnly)
	parts := c.connectionParts()
	switch {
	case c.Storage():
		named := parts["accountname"] != "" && parts["accountkey"] != ""
		signed := parts["queueendpoint"] != "" && parts["sharedaccesssignature"] != ""
		if !named && !signed && !strings.EqualFold(parts["usedevelopmentstorage"], "true") {
			x.wrong(path+".connection_string", "this connection string of a storage account is incomplete: %s", storageForm)
		}
	case parts["endpoint"] == "":
		x.wrong(path+".connection_string", "this is not a connection string of Service Bus, %s, or of a storage account, %s", busForm, storageForm)
	case !strings.HasPrefix(parts["endpoint"], "sb://") || parts["sharedaccesskey"] == "" && parts["sharedaccesssignature"] == "":
		x.wrong(path+".connection_string", "this is not a connection string of Service Bus: %s", busForm)
	}
}

// accountName is what Azure allows.
var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

func (x *completion) identity(path string, c Connection) {
	if c.Identity == "certificate" && (c.Certificate == "" || c.ClientID == "" || c.TenantID == "") {
		x.wrong(path, "identity: certificate needs certificate, client_id and tenant_id")
	}
	if c.Identity != "certificate" && c.Certificate != "" {
		x.wrong(path+".certificate", "it goes with identity: certificate")
	}
}

func (x *completion) connection(path string, c Connection) {
	var kinds []string
	for _, k := range []kind{{"nats", len(c.NATS) > 0}, {"connection_string", c.ConnectionString != ""}, {"namespace", c.Namespace != ""}, {"storage_account", c.StorageAccount != ""}} {
		if k.given {
			kinds = append(kinds, k.key)
		}
	}
	switch {
	case len(kinds) > 1:
		x.wrong(path, "it has both %s; a connection goes to one of them", strings.Join(kinds, " and "))
		return
	case c.ServiceBus(), c.Storage():
		x.azureConnection(path, c)
		return
	case len(c.NATS) == 0:
		x.wrong(path, "it needs nats (embedded, or the URLs of a cluster's servers), or connection_string, namespace (of Azure Service Bus) or storage_account")
		return
	}
	x.only(path, "namespace and storage_account", identityOnly)
	var ways []string
	for _, way := range []struct {
		key string
		set bool
	}{{"credentials", c.Credentials != ""}, {"nkey", c.NKey != ""}, {"token", c.Token != ""}, {"user", c.User != ""}} {
		if way.set {
			ways = append(ways, way.key)
		}
	}
	if c.Embedded() {
		if len(ways) > 0 || c.Password != "" || c.TLS != nil {
			x.wrong(path, "the embedded server has no credentials, nkey, token, user, password or tls; remove them")
		}
		x.listen(path+".listen", c.Listen)
		return
	}
	if len(ways) > 1 {
		x.wrong(path, "it has %s; keep one way to authenticate", strings.Join(ways, " and "))
	}
	if c.Password != "" && c.User == "" {
		x.wrong(path+".password", "it needs a user")
	}
	if c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		x.wrong(path+".tls", "set both cert and key")
	}
	for _, key := range []string{"listen", "sync", "max_store"} {
		if at, given := x.where[path+"."+key]; given {
			x.problem(at, "%s.%s: this key is only for the embedded server; remove it", path, key)
		}
	}
	for i, u := range c.NATS {
		at := path + ".nats"
		if len(c.NATS) > 1 {
			at = fmt.Sprintf("%s.nats[%d]", path, i)
		}
		parsed, err := url.Parse(u)
		switch {
		case u == "embedded":
			x.wrong(at, "embedded stands alone, without URLs beside it")
		case err != nil, parsed.Host == "":
			x.wrong(at, "this is neither embedded nor a URL; write it as nats://host:4222")
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme):
			x.wrong(at, "unsupported scheme %s://; use nats, tls, ws or wss", parsed.Scheme)
		case parsed.User != nil:
			x.secrets = append(x.secrets, parsed.User.String())
			x.wrong(at, "a URL must not contain a user or password, since URLs are printed; use the keys user, password or token")
		}
	}
}

func (x *completion) listen(path, listen string) {
	if listen == "off" {
		return
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		x.wrong(path, "%q is not an address; write HOST:PORT, or off", listen)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		x.wrong(path, "%q is not a port; write 0 to 65535", port)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		x.Warnings = append(x.Warnings, fmt.Sprintf("%s: %s can be reached from other machines without encryption; only the token in the data directory protects it", path, listen))
	}
}

// connectionOf is the connection that a trigger names, or the only one of its kind.
func (x *completion) connectionOf(path string, name *string, kind string, fits func(Connection) bool) (Connection, bool) {
	if *name == "" {
		var fitting []string
		for _, n := range names(x.Connections) {
			if fits(x.Connections[n]) {
				fitting = append(fitting, n)
			}
		}
		switch len(fitting) {
		case 0:
			x.wrong(path, "no connection to %s; add one to connections", kind)
			return Connection{}, false
		case 1:
			*name = fitting[0]
		default:
			x.wrong(path, "set connection to one of: %s", strings.Join(fitting, ", "))
			return Connection{}, false
		}
	}
	c, found := x.Connections[*name]
	if !found {
		x.wrong(path+".connection", "there is no connection %q%s", *name, meant(*name, names(x.Connections)))
		return c, false
	}
	if !fits(c) {
		x.wrong(path+".connection", "connection %s is not a connection to %s", *name, kind)
		return c, false
	}
	return c, true
}
