// Package dialer dials NATS servers within a context, because nats.Connect takes none.
package dialer

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// Dialer implements nats.CustomDialer. Until Started is called, the end of its context aborts
// the dialing, the name lookup and the first exchange with the server.
type Dialer struct {
	ctx     context.Context
	limit   time.Duration
	running atomic.Bool
}

// New returns a Dialer. limit bounds each Dial.
func New(ctx context.Context, limit time.Duration) *Dialer { return &Dialer{ctx: ctx, limit: limit} }

// Started is called after the first connection. From then on, the context has no effect.
func (d *Dialer) Started() { d.running.Store(true) }

// Dial is called by the NATS client, for reconnects as well.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
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
