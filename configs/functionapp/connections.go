package functionapp

import (
	"errors"
	"fmt"
	"strings"

	"github.com/drover-run/drover/configs"
)

// found is a connection, and the settings that it is from.
type found struct {
	configs.Connection
	from string
}

// service is the service that a connection must be for.
type service struct {
	name  string // for messages
	usual string // the setting of a binding without a connection
	// identity are the settings, behind __, any of which stands for a connection string.
	identity []string
	// refuse returns why a connection string is not one of the service; "" if it is.
	refuse func(c configs.Connection) string
	// read reads a setting that is not a connection string; nil if it is one.
	read func(text string) (configs.Connection, error)
	// more are further settings, behind __, of a connection.
	more map[string]func(c *configs.Connection, value string)
	// use sets the value of one of the settings of identity.
	use func(c *configs.Connection, key, value string) error
	// fits reports whether a connection is to the service.
	fits func(configs.Connection) bool
}

// findConnection returns the connection that a binding names: by the setting AzureWebJobsNAME or NAME,
// or by those of an identity. The error lists the missing settings.
func (s Settings) findConnection(name string, of *service) (found, error) {
	if name == "" {
		name = of.usual
	}
	names := []string{name}
	if !strings.HasPrefix(strings.ToLower(name), "azurewebjobs") {
		names = []string{"AzureWebJobs" + name, name}
	}
	for _, setting := range names {
		if text, from, given := s.Lookup(setting); given && text != "" {
			c, err := fromString(text, of)
			if err != nil {
				return found{}, fmt.Errorf("%s (%s) %w", setting, from, err)
			}
			s.addMore(&c, setting, of)
			return found{c, setting + ", " + from}, nil
		}
		c, from, err := s.byIdentity(setting, of)
		if err != nil || from != "" {
			return found{c, from}, err
		}
	}
	return found{}, fmt.Errorf("no setting %s (nor %s__%s, for an identity) in the environment or in the Values of %s", name, name, of.identity[0], settingsFile)
}

// addMore adds the further settings of a connection.
func (s Settings) addMore(c *configs.Connection, setting string, of *service) {
	for key, set := range of.more {
		if value := s.part(setting, key); value != "" {
			set(c, value)
		}
	}
}

// part returns a setting whose name has a key behind __; "" if it is missing.
func (s Settings) part(setting, key string) string {
	text, _, _ := s.Lookup(setting + "__" + key)
	if text == "" {
		text, _, _ = s.Lookup(setting + ":" + key)
	}
	return strings.TrimSpace(text)
}

// fromString checks that a connection string is one of the service.
func fromString(text string, of *service) (configs.Connection, error) {
	c := configs.Connection{ConnectionString: configs.Secret(text)}
	if strings.HasPrefix(text, "@Microsoft.KeyVault(") {
		return c, fmt.Errorf("refers to Key Vault, which only the platform resolves; set the secret's value, or use an identity: NAME__%s", of.identity[0])
	}
	if of.read != nil {
		return of.read(text)
	}
	if why := of.refuse(c); why != "" {
		return c, errors.New(why)
	}
	return c, nil
}

// byIdentity returns a connection that has no connection string. from is empty if no setting defines
// one.
func (s Settings) byIdentity(setting string, of *service) (c configs.Connection, from string, err error) {
	value := func(key string) string { return s.part(setting, key) }
	for _, key := range of.identity {
		text := value(key)
		if text == "" {
			continue
		}
		from = setting + "__" + key
		if err := of.use(&c, key, text); err != nil && of.read != nil {
			return c, from, fmt.Errorf("%s %w", from, err) // without the value: it may contain a secret
		} else if err != nil {
			return c, from, fmt.Errorf("%s is %q: %w", from, text, err)
		}
		break
	}
	if from == "" {
		return c, "", nil
	}
	if of.read != nil {
		s.addMore(&c, setting, of)
		return c, from, nil
	}
	for _, secret := range []string{"clientSecret", "managedIdentityResourceId", "managedIdentityObjectId"} {
		if value(secret) != "" {
			return c, from, fmt.Errorf("%s__%s is set, but drover does not use it: set the variables AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET for a secret, and %s__clientId for a managed identity", setting, secret, setting)
		}
	}
	c.ClientID, c.TenantID = value("clientId"), value("tenantId")
	switch credential := strings.ToLower(value("credential")); credential {
	case "":
	case "managedidentity":
		c.Identity = "managed"
	case "workloadidentity":
		c.Identity = "workload"
	default:
		return c, from, fmt.Errorf("%s__credential is %q; drover knows managedidentity and workloadidentity, and tries all without it", setting, credential)
	}
	return c, from, nil
}

// describe describes a connection, and where it is from, without its secrets.
func (f found) describe() string {
	text := f.String()
	if kind, _, found := strings.Cut(text, ", identity "); found {
		text = kind
		if f.Endpoint != "" {
			text += " at " + f.Endpoint
		}
		text += ", with " + f.describeIdentity()
	}
	return text + " (" + f.from + ")"
}

func (f found) describeIdentity() string {
	text := "the default identity"
	switch f.Identity {
	case "managed":
		text = "a managed identity"
	case "workload":
		text = "a workload identity"
	}
	if f.ClientID != "" {
		text += " of client id " + f.ClientID
	}
	return text
}
