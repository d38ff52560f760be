package servicebus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/drover-run/drover/triggers/servicebus/namespace"
)

// entity is a queue or a subscription. It has its own client, because an error of one entity ends
// the client's whole connection.
type entity struct {
	links
	admin     *inspector    // nil without the right Manage
	lock      time.Duration // of a message; 0 if the admin API did not report it
	most      int           // deliveries of a message; likewise
	roundTrip time.Duration // measured by check; 0 with sessions
	copies    copySender
	sessions  sessionCounts
}

// sessionCounts count an entity's messages in sessions. Guarded by t.mu.
type sessionCounts struct {
	held int // locked here
	// accepting counts the requests for sessions, and the sessions whose first message is awaited.
	accepting int
	messages  int // of the sessions locked here
	retrying  int // sessions whose message waits for its next attempt
}

// lockOf returns the duration of a lock that was received at now: the one reported by the admin
// API; else until minus now, which is right if the clocks agree; else the shortest possible.
func (e *entity) lockOf(until, now time.Time) time.Duration {
	if e.lock > 0 {
		return e.lock
	}
	if d := until.Sub(now); d > 0 && d <= namespace.LongestLock+time.Second {
		return d
	}
	return namespace.ShortestLock
}

func (e *entity) close(ctx context.Context) error {
	l := e.current.Load()
	defer l.gone()
	errs := []error{}
	if e.admin != nil {
		e.admin.done()
	}
	if l.receiver != nil {
		errs = append(errs, l.receiver.Close(ctx))
	}
	return errors.Join(append(errs, l.client.Close(ctx))...)
}

// closeLimit limits the time to close a receiver, or the whole trigger.
const closeLimit = 10 * time.Second

// linkLimit bounds the first attempt to settle a message, over the link that delivered it. The
// attempt takes at most twice as long.
const linkLimit = 750 * time.Millisecond

// links opens the links of an entity, one after the other.
type links struct {
	address
	t *shared
	// current is the current link, as far as known. A message is settled over the link that
	// delivered it only while that link is current.
	current atomic.Pointer[link]
}

// link is a client, its receiver, and their connection. Its context ends when the connection
// is known to be lost. If the SDK then reconnects the same client, that counts as another link.
type link struct {
	client   *azservicebus.Client
	receiver *azservicebus.Receiver // nil with sessions
	ctx      context.Context
	gone     context.CancelFunc
	users    *users // sessions over the client

	mu       sync.Mutex
	settling context.Context // the context of new settlements
	until    time.Time       // when settling is replaced
}

// settleContext returns the context for a settlement over the link. It ends with the link, or after
// one to two times linkLimit. Settlements share it: a context per message would take a tenth of
// drover's cost per message.
func (l *link) settleContext() context.Context {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.After(l.until) {
		l.until = now.Add(linkLimit)
		ctx, cancel := context.WithDeadline(l.ctx, l.until.Add(linkLimit))
		context.AfterFunc(ctx, cancel)
		l.settling = ctx
	}
	return l.settling
}

// dial returns a link with a new client. The client connects on its first use.
func (ls *links) dial() (*link, error) {
	client, err := ls.t.cfg.Access.Client()
	if err != nil {
		return nil, err
	}
	l := &link{client: client, users: new(users)}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if ls.t.cfg.Sessions {
		return l, nil
	}
	if l.receiver, err = ls.newReceiver(client); err != nil {
		l.gone()
		return nil, errors.Join(err, client.Close(context.Background()))
	}
	return l, nil
}

func (ls *links) newReceiver(client *azservicebus.Client) (*azservicebus.Receiver, error) {
	if ls.queue != "" {
		return client.NewReceiverForQueue(ls.queue, nil)
	}
	return client.NewReceiverForSubscription(ls.topic, ls.subscription, nil)
}

// lostLink records that the connection was lost. The SDK reconnects.
func (ls *links) lostLink(old *link) {
	l := &link{client: old.client, receiver: old.receiver, users: old.users}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !ls.current.CompareAndSwap(old, l) {
		l.gone()
	}
	old.gone()
}

// detach closes the receiver, which may have requests pending: messages released at a stop
// would be redelivered over it. A receiver that never receives replaces it, for settlements.
func (ls *links) detach() {
	old := ls.current.Load()
	r, err := ls.newReceiver(old.client)
	if err != nil {
		return // the client is closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	// The receiver's link must be open before concurrent settlements use it: see openSender. Any
	// request opens it, such as the renewal of a lock that does not exist.
	_ = r.RenewMessageLock(ctx, new(azservicebus.ReceivedMessage), nil)
	l := &link{client: old.client, receiver: r, users: old.users}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !ls.current.CompareAndSwap(old, l) {
		l.gone()
		_ = r.Close(ctx)
		return
	}
	old.gone()
	if err := old.receiver.Close(ctx); err != nil {
		ls.t.log.Debug("closing a receiver", "entity", ls.path(), "error", err)
	}
}

// reopen replaces a client. A changed secret takes effect.
func (ls *links) reopen(old *link) error {
	l, err := ls.dial()
	if err != nil {
		return err
	}
	if !ls.current.CompareAndSwap(old, l) {
		l.gone()
		return l.client.Close(ls.t.ctx) // another goroutine has replaced it
	}
	old.gone()
	old.users.retire(func() {
		ls.t.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			defer cancel()
			_ = old.client.Close(ctx) // it is broken, or was idle
		})
	})
	return nil
}

// users counts the users of a client. When the client has been replaced, the last user closes it.
type users struct {
	mu     sync.Mutex
	n      int
	closer func() // set when the client is replaced
}

// add adds a user. It returns false if the client was already replaced.
func (u *users) add() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closer != nil {
		return false
	}
	u.n++
	return true
}

func (u *users) done() {
	u.mu.Lock()
	u.n--
	last := u.n == 0 && u.closer != nil
	u.mu.Unlock()
	if last {
		u.closer()
	}
}

func (u *users) retire(closer func()) {
	u.mu.Lock()
	u.closer = closer
	unused := u.n == 0
	u.mu.Unlock()
	if unused {
		closer()
	}
}
