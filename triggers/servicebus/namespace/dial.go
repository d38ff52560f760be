package namespace

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/servicebus/wire"
)

// dial connects the SDK to the namespace. The SDK converts messages with unchecked type
// assertions, so a sender could crash the process with one property. This function, meant for
// websockets, is the SDK's only hook below that. The connection is plain AMQP, and changes
// messages that the SDK cannot read.
func (a *Access) dial(plain bool) func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
	return func(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
		to, err := url.Parse(args.Host)
		if err != nil {
			return nil, fmt.Errorf("the address of the namespace: %w", err)
		}
		address := to.Host
		if a.Endpoint != "" {
			address = a.Endpoint
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			port := "5671"
			if plain {
				port = "5672"
			}
			address = net.JoinHostPort(address, port)
		}
		var c net.Conn
		if plain {
			c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
			if errors.Is(err, syscall.ECONNREFUSED) {
				err = fmt.Errorf("%w; is the emulator running? To start one: drover emulate servicebus --queue NAME", err)
			}
		} else {
			config := a.TLS.Clone() // Clone returns nil for nil
			if config == nil {
				config = new(tls.Config)
			}
			if config.ServerName == "" {
				config.ServerName = to.Hostname()
			}
			c, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		}
		if err != nil {
			return nil, err
		}
		return wire.New(c), nil
	}
}
