// Package httphost translates the settings that the Azure Functions host has for HTTP functions. Its
// functions are pure.
package httphost

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/servers"
)

// Port is the name of the setting with the port, which local.settings.json has beside Values.
const Port = "Host:LocalHttpPort"

const (
	urls = "ASPNETCORE_URLS"
	// secrets is a directory with keys.
	secrets = "FUNCTIONS_SECRETS_PATH"
	// keys of host.json
	group       = "extensions:http:"
	prefix      = group + "routePrefix"
	outstanding = group + "maxOutstandingRequests"
	headers     = group + "customHeaders:"
	// usualPrefix is the prefix of routes without one in host.json.
	usualPrefix = "api"
	// mostRequests is the largest value of servers.HTTP.MaxRequests.
	mostRequests = 1_000_000
)

// Source has the settings of an app.
type Source struct {
	// Setting looks up an app setting; from is of no interest here.
	Setting func(name string) (value, from string, found bool)
	// Keys are the names of host.json, with colons, and their values, which were checked.
	Keys iter.Seq2[string, string]
}

// SetServer sets the server of HTTP functions. to has the defaults.
func SetServer(to *servers.HTTP, from Source) {
	to.Prefix = usualPrefix
	for name, text := range from.Keys {
		switch {
		case strings.EqualFold(name, prefix):
			to.Prefix = text
		case strings.EqualFold(name, outstanding):
			n, _ := strconv.Atoi(text)
			if to.MaxRequests = n; n < 1 || n > mostRequests {
				to.MaxRequests = mostRequests
			}
		case len(name) > len(headers) && strings.EqualFold(name[:len(headers)], headers):
			if to.Headers == nil {
				to.Headers = make(map[string]string)
			}
			to.Headers[name[len(headers):]] = text
		}
	}
	if port, _, found := from.Setting(Port); found {
		to.Listen = net.JoinHostPort("127.0.0.1", port)
	}
	if list, _, found := from.Setting(urls); found {
		to.Listen = cmp.Or(addressOf(list), to.Listen)
	}
	if dir, _, found := from.Setting(secrets); found {
		to.Keys.Directory = dir
	}
}

// SetTrigger sets the methods and the level of a trigger. The error is about its level or its
// route.
func SetTrigger(to *configs.HTTPTrigger, methods []string, level string) error {
	for _, method := range methods {
		to.Methods = append(to.Methods, strings.ToUpper(method))
	}
	to.Auth = cmp.Or(strings.ToLower(level), to.Auth)
	if to.Auth != "anonymous" && to.Auth != "function" && to.Auth != "admin" {
		return fmt.Errorf("the authLevel is %s; it must be anonymous, function or admin", to.Auth)
	}
	_, err := to.ParseRoute()
	return err
}

// DescribeTrigger describes a trigger of a function, an ASGI app or a WSGI app.
func DescribeTrigger(t *configs.HTTPTrigger, kind string) string {
	r, err := t.ParseRoute()
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%s /%s, level %s", cmp.Or(strings.Join(t.Methods, ", "), "any method"), r, t.Auth)
	if kind == "asgi" || kind == "wsgi" {
		text += fmt.Sprintf(", %s app", map[string]string{"asgi": "an ASGI", "wsgi": "a WSGI"}[kind])
	}
	return text
}

// CheckPort returns why a text is not a port.
func CheckPort(text string) error {
	if n, err := strconv.Atoi(text); err != nil || n < 1 || n > 65535 {
		return errors.New("it must be a number from 1 to 65535")
	}
	return nil
}

// addressOf returns the address of the first URL without TLS in a list such as
// http://+:80;https://+:443; empty if there is none.
func addressOf(list string) string {
	for one := range strings.SplitSeq(list, ";") {
		address, isPlain := strings.CutPrefix(strings.ToLower(strings.TrimSpace(one)), "http://")
		if !isPlain {
			continue
		}
		address = strings.TrimRight(address, "/")
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = strings.Trim(address, "[]"), "80"
		}
		if host == "+" || host == "*" {
			host = ""
		}
		return net.JoinHostPort(host, port)
	}
	return ""
}
