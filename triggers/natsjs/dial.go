package natsjs

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// dialer connects to servers. Until started is called, the end of ctx ends the dialing,
// the lookup of names and the first exchange with the server: nats.Connect has no context.
type dialer struct {
	ctx     context.Context
	limit   time.Duration
	running atomic.Bool
}

// started has later connections last, whatever becomes of ctx.
func (d *dialer) started() { d.running.Store(true) }

// Dial is called by the NATS client, for reconnects as well.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	ctx := d.ctx
	if d.running.Load() {
		ctx = context.Background()
	}
	limited, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	hosts, err := net.DefaultResolver.LookupHost(limited, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	var errs []error
	for i, host := range hosts {
		one, cancel := context.WithTimeout(limited, d.limit/time.Duration(len(hosts)))
		conn, err := new(net.Dialer).DialContext(one, network, net.JoinHostPort(host, port))
		cancel()
		if err == nil {
			if d.running.Load() {
				return conn, nil
			}
			context.AfterFunc(ctx, func() {
				if !d.running.Load() {
					_ = conn.Close() // the first exchange fails at once
				}
			})
			return conn, nil
		}
		if errs = append(errs, err); i == len(hosts)-1 || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}
