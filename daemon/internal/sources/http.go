package sources

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/httptrigger"
	"github.com/drover-run/drover/triggers/httptrigger/keys"
)

// httpSystem is the name in traces; the conventions for messaging define none.
const httpSystem = "http"

// requests are HTTP requests. They have neither outputs nor connections of their own.
type requests struct{}

func (requests) sourceOf(t configs.Trigger) source {
	if t.HTTP == nil {
		return nil
	}
	return httpSource{t.HTTP}
}

func (requests) outputOf(configs.Output) output { return nil }

func (requests) connectionOf(Config, string) connection { return nil }

// httpSource is the route of a function.
type httpSource struct{ *configs.HTTPTrigger }

func (s httpSource) messageTraits() Traits {
	route := s.Route
	if r, err := s.ParseRoute(); err == nil {
		route = r.String()
	}
	method := "POST"
	if len(s.Methods) > 0 {
		method = s.Methods[0]
	}
	host, port, _ := net.SplitHostPort(s.Server.Listen) // checked before
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/" + route
	return Traits{
		Entity:     dispatch.Entity{System: httpSystem, Name: "/" + route},
		CannotSend: "has an http trigger, which receives requests and no messages: curl -X " + method + " " + url,
		CannotPeek: "has an http trigger, whose requests wait only in the daemon; to run it once: drover invoke",
		SampleBody: []byte{}, SendersWait: true,
		SampleProperties: triggers.Properties{
			triggers.HTTPMethod: method, triggers.HTTPURL: url, triggers.HTTPQuery: "", triggers.HTTPParams: "{}", triggers.HTTPRemote: "127.0.0.1",
		},
	}
}

func (s httpSource) openTrigger(ctx context.Context, set *Set, t TriggerConfig) (triggers.Trigger, error) {
	if !t.Receives {
		return elsewhere{}, s.reserveAddress(ctx, set)
	}
	route, err := s.ParseRoute()
	if err != nil {
		return nil, err
	}
	access, err := s.openKeys(set)
	if err != nil {
		return nil, err
	}
	server, err := s.openServer(set)
	if err != nil {
		return nil, err
	}
	trigger, err := server.Open(ctx, httptrigger.Config{
		Function: t.Function, Route: route, Methods: s.Methods, Level: keys.Level(s.Auth), Access: access,
		Limits: httptrigger.Limits{
			MaxBody: s.largestBody(int64(t.Settings.MaxBody)), MaxOutstanding: s.Server.MaxRequests,
			QueueTimeout: s.Server.QueueTimeout.D(), BodyTimeout: s.Server.BodyTimeout.D(),
		},
		Headers: s.Server.Headers, Memory: t.Memory, Log: t.Log,
	})
	if err != nil {
		return nil, err
	}
	methods := "all"
	if len(s.Methods) > 0 {
		methods = strings.Join(s.Methods, ",")
	}
	t.Log.Info("listening for requests", "url", trigger.URL(), "methods", methods, "auth", s.Auth)
	if s.Auth != string(keys.Anonymous) && !access.Open && !access.Keys.HasKeyFor(t.Function, keys.Level(s.Auth)) {
		t.Log.Warn("all requests are answered with 401, because there is no key; make one with `openssl rand -hex 32`, and set http.keys.all or http.keys.master to it")
	}
	return trigger, nil
}

// largestBody returns the limit of a body. own is the function's; 0 is none.
func (s httpSource) largestBody(own int64) int64 {
	if limit := int64(s.Server.MaxBody); own == 0 || limit < own {
		return limit
	}
	return own
}

// openServer opens the server of all functions, or takes it from the earlier Set.
func (s httpSource) openServer(set *Set) (*httptrigger.Server, error) {
	return shareResource(set, "http server "+s.Server.Listen, true, func() (*httptrigger.Server, error) {
		return httptrigger.NewServer(httptrigger.ServerConfig{Address: s.Server.Listen, Shared: set.Parent != "", Run: set.Run, Log: set.Log}), nil
	})
}

// keyRing is a ring as a resource.
type keyRing struct{ *keys.Ring }

// Close does nothing.
func (keyRing) Close() error { return nil }

// openKeys reads the keys of all functions, once for a configuration.
func (s httpSource) openKeys(set *Set) (httptrigger.Access, error) {
	ring, err := shareResource(set, "http keys", false, func() (keyRing, error) {
		k := s.Server.Keys
		cfg := keys.Config{Master: string(k.Master), Default: string(k.All), Functions: make(map[string]string), Directory: k.Directory}
		for name, key := range k.Functions {
			cfg.Functions[name] = string(key)
		}
		ring, err := keys.New(cfg)
		if err == nil && s.Server.IsLocal() && ring.IsEmpty() {
			set.Log.Info("requests need no key, because http.listen is local and there are no keys", "listen", s.Server.Listen)
		}
		return keyRing{ring}, err
	})
	return httptrigger.Access{Keys: ring.Ring, Open: s.Server.IsLocal()}, err
}

// reserveAddress reserves the address for the instances that a daemon starts. Commands need none.
func (s httpSource) reserveAddress(ctx context.Context, set *Set) error {
	if set.Started.IsZero() {
		return nil
	}
	_, err := shareResource(set, "http address "+s.Server.Listen, true, func() (io.Closer, error) {
		return httptrigger.Reserve(ctx, s.Server.Listen)
	})
	return err
}

// elsewhere is the trigger of a function whose requests other processes receive. They report their
// own backlogs.
type elsewhere struct{}

// Receive implements triggers.Trigger.
func (elsewhere) Receive(context.Context, int) ([]*triggers.Delivery, error) {
	return nil, errors.New("the requests go to other processes")
}

// Backlog implements triggers.Trigger.
func (elsewhere) Backlog(context.Context) (triggers.Backlog, error) { return triggers.Backlog{}, nil }

// Close implements triggers.Trigger.
func (elsewhere) Close(context.Context) error { return nil }

func (httpSource) openPeeker(context.Context, Config) (triggers.Peeker, func() error, error) {
	return emptyPeeker{}, func() error { return nil }, nil
}

func (httpSource) openDeadLetters(context.Context, Config, bool) (triggers.DeadLetters, func() error, error) {
	return emptyDeadLetters{}, func() error { return nil }, nil
}
