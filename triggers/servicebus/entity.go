package servicebus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// entity is a queue or a subscription, and its receiver. It has a client of its own, because
// an error of one entity ends a client's whole connection.
type entity struct {
	t                          *trigger
	queue, topic, subscription string

	// link is the current link, as far as is known. A message is settled over the link
	// that delivered it only while that is the current one.
	link  atomic.Pointer[link]
	admin *inspector    // nil without the right Manage
	lock  time.Duration // of a message; 0 if the admin API did not report it
	// copies sends scheduled copies, over the client copiesBy.
	sending  sync.Mutex
	copies   *azservicebus.Sender
	copiesBy *azservicebus.Client

	// Guarded by t.mu.
	failing  error
	pause    context.CancelFunc // cancels the current receive call
	sessions int                // held here
	// accepting counts the sessions that are awaited, or whose first message is.
	accepting int
	// inSessions counts the messages of the sessions held here.
	inSessions int
	// retrying counts the sessions whose message waits for its next attempt.
	retrying int

	// Used by receiveLoop only.
	ask     int           // how many messages it requests next, at most
	out     int           // requested, and not arrived
	fast    int           // how often in a row messages arrived as fast as possible
	fastest time.Duration // shortest time of a receive call; at first, a round trip
}

// link is a client, its receiver, and their connection. Its context ends when the connection
// is known to be lost. If the SDK then reconnects the same client, that is another link.
type link struct {
	client   *azservicebus.Client
	receiver *azservicebus.Receiver // nil with sessions
	ctx      context.Context
	gone     context.CancelFunc
	users    *users // sessions over the client

	mu       sync.Mutex
	settling context.Context // of settlements that begin now
	until    time.Time       // until when settling is used
}

// settle returns the context of a settlement over the link. It ends with the link, or after
// one to two times linkLimit. Settlements share it: one per message would be a tenth of
// drover's cost per message.
func (l *link) settle() context.Context {
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

func (e *entity) path() string {
	if e.queue != "" {
		return e.queue
	}
	return e.topic + "/Subscriptions/" + e.subscription
}

// dial returns a link with a new client, which connects when it is first used.
func (e *entity) dial() (*link, error) {
	client, err := e.t.cfg.Access.Client()
	if err != nil {
		return nil, err
	}
	l := &link{client: client, users: new(users)}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if e.t.cfg.Sessions {
		return l, nil
	}
	if l.receiver, err = e.newReceiver(client); err != nil {
		l.gone()
		return nil, errors.Join(err, client.Close(context.Background()))
	}
	return l, nil
}

func (e *entity) newReceiver(client *azservicebus.Client) (*azservicebus.Receiver, error) {
	if e.queue != "" {
		return client.NewReceiverForQueue(e.queue, nil)
	}
	return client.NewReceiverForSubscription(e.topic, e.subscription, nil)
}

// lostLink records that the connection was lost. The SDK reconnects.
func (e *entity) lostLink(old *link) {
	l := &link{client: old.client, receiver: old.receiver, users: old.users}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !e.link.CompareAndSwap(old, l) {
		l.gone()
	}
	old.gone()
}

// detach closes the receiver, which may have requests pending: messages released at a stop
// would be redelivered over it. A receiver that never receives replaces it, for settlements.
func (e *entity) detach() {
	old := e.link.Load()
	r, err := e.newReceiver(old.client)
	if err != nil {
		return // the client is closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	// The receiver's link must be open before many settle over it: see openSender. Any request
	// opens it, such as one to renew a lock that nobody holds.
	_ = r.RenewMessageLock(ctx, new(azservicebus.ReceivedMessage), nil)
	l := &link{client: old.client, receiver: r, users: old.users}
	l.ctx, l.gone = context.WithCancel(context.Background())
	if !e.link.CompareAndSwap(old, l) {
		l.gone()
		_ = r.Close(ctx)
		return
	}
	old.gone()
	if err := old.receiver.Close(ctx); err != nil {
		e.t.log.Debug("closing a receiver", "entity", e.path(), "error", err)
	}
}

// reopen replaces a client; a changed secret takes effect.
func (e *entity) reopen(old *link) error {
	l, err := e.dial()
	if err != nil {
		return err
	}
	if !e.link.CompareAndSwap(old, l) {
		l.gone()
		return l.client.Close(e.t.ctx) // somebody else did
	}
	old.gone()
	old.users.retire(func() {
		e.t.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			defer cancel()
			_ = old.client.Close(ctx) // it is broken, or was idle
		})
	})
	return nil
}

// users counts the users of a client, which is closed when it was replaced and the last user
// is done.
type users struct {
	mu     sync.Mutex
	n      int
	closer func() // once it is replaced
}

// add reports false if the client was replaced already.
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

func (e *entity) close(ctx context.Context) error {
	l := e.link.Load()
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
