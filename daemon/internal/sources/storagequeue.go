package sources

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/internal/dispatch"
	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue"
	"github.com/drover-run/drover/triggers/storagequeue/reasons"
	"github.com/drover-run/drover/triggers/storagequeue/timerstore"
	"github.com/drover-run/drover/triggers/timer"
)

const (
	// storageLanes is how many results are sent to a storage queue at once: the service accepts
	// only single messages.
	storageLanes = 32
	// storageSystem is the name in traces; the conventions define none.
	storageSystem = "azure_storage_queue"
	// ledgerKey is the key of the ledger in a Set.
	ledgerKey = "ledger of failures"
	// dataDirMode is for data_dir, if the ledger is the first to need it.
	dataDirMode = 0o700
	// reasonsDir is the directory in data_dir that keeps why messages were rejected.
	reasonsDir = "dead-letters"
)

// storage is Azure Storage queues. The functions of a Set share the HTTP connections of an
// account, and one ledger of failures.
type storage struct{}

func (storage) sourceOf(t configs.Trigger) source {
	if t.StorageQueue == nil {
		return nil
	}
	return storageSource{t.StorageQueue}
}

func (storage) outputOf(o configs.Output) output {
	if o.StorageQueue == nil {
		return nil
	}
	return storageOutput{o.StorageQueue}
}

func (storage) connectionOf(c Config, name string) connection {
	if !c.Settings.Connections[name].Storage() {
		return nil
	}
	return storageConnection{c, name}
}

// storageAccount returns the storage account that a connection describes.
func storageAccount(name string, c configs.Connection) (*storagequeue.Account, error) {
	access := storagequeue.Access{Endpoint: c.Endpoint}
	var err error
	if access.TLS, err = ownRoots(name, c); err != nil {
		return nil, err
	}
	if c.StorageAccount == "" {
		access.ConnectionString = c.ReadConnectionString
		return storagequeue.NewAccount(access), nil
	}
	if access.Endpoint == "" {
		access.Endpoint = "https://" + c.StorageAccount + ".queue.core.windows.net"
	}
	if access.Credential, err = azureCredential(name, c); err != nil {
		return nil, err
	}
	return storagequeue.NewAccount(access), nil
}

// sharedAccount is an account in a Set.
type sharedAccount struct{ *storagequeue.Account }

// Close implements resource.
func (a *sharedAccount) Close() error {
	a.Account.Close()
	return nil
}

// shareAccount returns the account of a connection, which triggers and outputs share.
func shareAccount(s *Set, name string) (*storagequeue.Account, error) {
	shared, err := shareResource(s, name, s.canReuse(name), func() (*sharedAccount, error) {
		a, err := storageAccount(name, s.Settings.Connections[name])
		return &sharedAccount{a}, err
	})
	if err != nil {
		return nil, err
	}
	return shared.Account, nil
}

// shareLedger returns the ledger of failures. It is one file, so an earlier Set's is always reused.
func shareLedger(s *Set) (*storagequeue.Ledger, error) {
	return shareResource(s, ledgerKey, true, func() (*storagequeue.Ledger, error) {
		if err := os.MkdirAll(s.Settings.DataDir, dataDirMode); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
		return storagequeue.OpenLedger(filepath.Join(s.Settings.DataDir, "storagequeue.db"))
	})
}

// storageSource is the queue of a function.
type storageSource struct{ *configs.StorageQueueTrigger }

func (q storageSource) messageTraits() Traits {
	return Traits{
		Entity:    dispatch.Entity{System: storageSystem, Name: q.Queue},
		Target:    Target{Connection: q.Connection, Address: q.Queue},
		PeekLimit: storagequeue.MaxPeek, BrowseHides: true,
	}
}

func (q storageSource) openTrigger(ctx context.Context, s *Set, t TriggerConfig) (triggers.Trigger, error) {
	account, err := shareAccount(s, q.Connection)
	if err != nil {
		return nil, err
	}
	ledger, err := shareLedger(s)
	if err != nil {
		return nil, err
	}
	return storagequeue.Open(ctx, storagequeue.Config{
		Account: account, Queue: q.Queue, Encoding: storagequeue.Encoding(q.Encoding), Create: q.Create,
		PoisonQueue: q.PoisonQueue, PoisonFormat: storagequeue.PoisonFormat(q.PoisonFormat),
		Lease: q.Lease.D(), MaxPollInterval: q.MaxPollInterval.D(),
		MaxAttempts: t.Settings.Retry.MaxAttempts, MaxDequeueCount: int64(q.MaxDequeueCount), Prefetch: int(t.Settings.Prefetch),
		Ledger: ledger, Reasons: reasons.NewStore(filepath.Join(s.Settings.DataDir, reasonsDir)), Memory: t.Memory, Record: shareRecord(s, t), Log: t.Log,
	})
}

func (q storageSource) openPeeker(_ context.Context, c Config) (triggers.Peeker, func() error, error) {
	account, err := storageAccount(q.Connection, c.Settings.Connections[q.Connection])
	if err != nil {
		return nil, nil, err
	}
	p, err := storagequeue.OpenPeeker(storagequeue.PeekConfig{
		Account: account, Queue: q.Queue, Encoding: storagequeue.Encoding(q.Encoding), Log: c.Log,
	})
	if err != nil {
		account.Close()
		return nil, nil, err
	}
	return p, func() error { account.Close(); return nil }, nil
}

func (q storageSource) openDeadLetters(_ context.Context, c Config, _ bool) (triggers.DeadLetters, func() error, error) {
	account, err := storageAccount(q.Connection, c.Settings.Connections[q.Connection])
	if err != nil {
		return nil, nil, err
	}
	d, err := storagequeue.OpenDeadLetters(storagequeue.DeadLettersConfig{
		Account: account, Queue: q.Queue, PoisonQueue: q.PoisonQueue, PoisonFormat: storagequeue.PoisonFormat(q.PoisonFormat), Encoding: storagequeue.Encoding(q.Encoding),
		Reasons: q.readReasons(c),
	})
	return d, func() error { account.Close(); return nil }, err
}

// readReasons returns why messages were rejected, by this daemon and its instances.
func (q storageSource) readReasons(c Config) map[string]reasons.Reason {
	dirs, _ := filepath.Glob(filepath.Join(c.Settings.DataDir, "instances", "*", reasonsDir)) // the pattern is valid
	return reasons.ReadAll(append(dirs, filepath.Join(c.Settings.DataDir, reasonsDir)), q.PoisonQueue)
}

// storageOutput is a queue that results are sent to.
type storageOutput struct{ *configs.StorageQueueOutput }

func (q storageOutput) openOutput(_ context.Context, s *Set) (dispatch.OutputConfig, error) {
	account, err := shareAccount(s, q.Connection)
	if err != nil {
		return dispatch.OutputConfig{}, err
	}
	open := func(context.Context) (dispatch.Sender, func() error, error) {
		sender, err := storagequeue.NewSender(storagequeue.SenderConfig{
			Account: account, Queue: q.Queue, Encoding: storagequeue.Encoding(q.Encoding), Delay: q.Delay.D(), TimeToLive: q.TimeToLive.D(), Create: q.Create,
		})
		if err != nil {
			return nil, nil, err
		}
		return sender, func() error { return nil }, nil
	}
	return dispatch.OutputConfig{Open: open, Lanes: storageLanes, Entity: dispatch.Entity{System: storageSystem, Name: q.Queue}}, nil
}

// storageConnection is an account.
type storageConnection struct {
	Config
	name string
}

// shareConnection takes the earlier Set's account, because functions that a reload does not change
// continue to use it. It opens nothing: an account connects at its first use.
func (c storageConnection) shareConnection(_ context.Context, s *Set) error {
	if s.canReuse(c.name) {
		s.carryOver(c.name)
	}
	s.carryOver(ledgerKey)
	return nil
}

func (storageConnection) acceptedParts() Accepts {
	return Accepts{Name: "a storage queue", TTL: true, MaxDelay: storagequeue.MaxDelay, Property: func(string) bool { return true }}
}

// openSender opens a sender to a queue. A function's queue is created if the function would
// create it.
func (c storageConnection) openSender(_ context.Context, to Target, options SendOptions) (dispatch.Sender, func() error, error) {
	account, err := storageAccount(c.name, c.Settings.Connections[c.name])
	if err != nil {
		return nil, nil, err
	}
	out, err := c.newSender(account, to, options)
	if err != nil {
		return nil, nil, err
	}
	return out, func() error { account.Close(); return nil }, nil
}

func (c storageConnection) shareSender(_ context.Context, s *Set, to Target) (dispatch.OpenSender, error) {
	account, err := shareAccount(s, c.name)
	if err != nil {
		return nil, err
	}
	return func(context.Context) (dispatch.Sender, func() error, error) {
		out, err := c.newSender(account, to, SendOptions{})
		if err != nil {
			return nil, nil, err
		}
		return out, func() error { return nil }, nil
	}, nil
}

func (c storageConnection) newSender(account *storagequeue.Account, to Target, options SendOptions) (*storagequeue.Sender, error) {
	s := storagequeue.SenderConfig{
		Account: account, Queue: to.Address, Encoding: storagequeue.Encoding(options.Encoding), TimeToLive: storagequeue.DefaultTimeToLive,
	}
	if options.TTL != nil {
		s.TimeToLive = *options.TTL
	}
	if q := c.Settings.Functions[to.Function].Trigger.StorageQueue; q != nil {
		s.Create = q.Create
		if s.Encoding == "" {
			s.Encoding = storagequeue.Encoding(q.Encoding)
		}
	}
	if s.Encoding == "" {
		s.Encoding = storagequeue.Base64
	}
	return storagequeue.NewSender(s)
}

// openTimerStore implements timerKeeper.
func (c storageConnection) openTimerStore(_ context.Context, s *Set, settings *configs.TimerTrigger, t TriggerConfig) (timer.Store, error) {
	account, err := shareAccount(s, c.name)
	if err != nil {
		return nil, err
	}
	return timerstore.New(timerstore.Config{Account: account, Group: settings.Group, Name: t.Function, Lease: settings.Lease.D(), Log: t.Log})
}
