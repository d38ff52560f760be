package storagequeue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2/sas"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// The service's clock is off by a day: times are measured with the local clock.
func TestAClockThatIsOff(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			a := emulated(t)
			queue := a.newQueue(t)
			a.SetClock(ahead)
			// A key's signature has a date, and is refused.
			_, err := Open(t.Context(), a.config(t, queue))
			if err == nil || !strings.Contains(err.Error(), "this machine's clock") || !strings.Contains(err.Error(), "too old or too new") {
				t.Fatalf("%v", err)
			}
			// A shared access signature has none, nor has a token.
			_, endpoint, _ := strings.Cut(a.connection, "QueueEndpoint=")
			b := at(t, "QueueEndpoint="+strings.TrimSuffix(endpoint, ";")+";SharedAccessSignature=sv=2024-11-04&sig=x", a.Emulator)
			b.send(t, queue, "long", "again")
			tr := b.open(t, queue, nil)
			ds := receive(t, tr, 2)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if more, _ := tr.Receive(ctx, 1); len(more) > 0 {
				t.Fatal("a lease was not renewed")
			}
			before := time.Now()
			settle(t, ds[1], triggers.Verdict{Kind: triggers.Retry, Delay: time.Second})
			d := receive(t, tr, 1)[0]
			if took := time.Since(before); d.Message.Attempt != 2 || took < 950*time.Millisecond {
				t.Errorf("attempt %d after %v", d.Message.Attempt, took)
			}
			done(t, ds[0], d)
		})
	}
}

// Errors for users name the place, the problem, and the solution.
func TestErrors(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a *account) {
		fails := func(cfg Config, wants ...string) {
			t.Helper()
			tr, err := Open(t.Context(), cfg)
			if err == nil {
				err = tr.Close(t.Context())
				t.Errorf("it opened; want %q (%v)", wants, err)
				return
			}
			for _, want := range wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want %q", err, want)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "sig=") || strings.Contains(err.Error(), emulator.Key) {
				t.Errorf("a secret or a line end in %q", err)
			}
		}
		fails(a.config(t, "missing"), "missing", "QueueNotFound (HTTP 404)", "create: true creates it")
		fails(a.config(t, "Not_A_Name"), "Not_A_Name", "HTTP 400")
		cfg := a.config(t, "made-here")
		cfg.Create = true
		tr, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// It is deleted while it is read, and made again.
		if _, err := a.raw(t, "made-here").Delete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Receive(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "QueueNotFound") {
			t.Errorf("receiving from a queue that was deleted: %v", err)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}

		gone := at(t, emulator.ConnectionString("127.0.0.1:1"), nil)
		fails(gone.config(t, "orders"), "127.0.0.1:1: ", "connection refused", "To start one: drover emulate storagequeue")
		for _, test := range []struct{ connection, want string }{
			{"AccountName=x", "needs either AccountKey or SharedAccessSignature"},
			{"nonsense", "malformed"},
			{"AccountName=x;AccountKey=%%%", "the connection string: "},
		} {
			cfg := a.config(t, "orders")
			cfg.Account = newAccount(t, test.connection)
			fails(cfg, test.want)
		}
	})
}

// Signatures checked by Azurite: an expired one, and one without a permission.
func TestSignatures(t *testing.T) {
	t.Parallel()
	a := at(t, azuritetest.Start(t).ConnectionString(), nil)
	queue := a.newQueue(t)
	credential, err := azqueue.NewSharedKeyCredential(emulator.Account, emulator.Key)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(p sas.QueuePermissions, until time.Duration) string {
		t.Helper()
		q, err := sas.QueueSignatureValues{Version: sas.Version, Protocol: sas.ProtocolHTTPSandHTTP, StartTime: time.Now().Add(-time.Hour).UTC(), ExpiryTime: time.Now().Add(until).UTC(), Permissions: p.String(), QueueName: queue}.SignWithSharedKey(credential)
		if err != nil {
			t.Fatal(err)
		}
		_, endpoint, _ := strings.Cut(a.connection, "QueueEndpoint=")
		return "QueueEndpoint=" + strings.TrimSuffix(endpoint, ";") + ";SharedAccessSignature=" + q.Encode()
	}
	all := sas.QueuePermissions{Read: true, Add: true, Update: true, Process: true}

	// An expired signature is read again, as from a changed file.
	var connection atomic.Value
	connection.Store(signed(all, -time.Minute))
	account := NewAccount(Access{ConnectionString: func() (string, error) { return connection.Load().(string), nil }})
	t.Cleanup(account.Close)
	b := &otherWay{a, account}
	_, err = Open(t.Context(), b.config(t, queue))
	if err == nil || !strings.Contains(err.Error(), "the key or signature is wrong or has expired") || strings.Contains(err.Error(), "sig=") {
		t.Errorf("a signature that is over: %v", err)
	}
	connection.Store(signed(all, 2*time.Second))
	tr := b.open(t, queue)
	a.send(t, queue, "x")
	done(t, receive(t, tr, 1)...)
	eventually(t, "the signature is over", func() bool {
		_, err := tr.queue.peek(t.Context(), 1)
		return err != nil
	})
	connection.Store(signed(all, time.Hour))
	a.send(t, queue, "y")
	done(t, receive(t, tr, 1)...)

	// Without the permission to update, leases are not renewed, and end.
	connection.Store(signed(sas.QueuePermissions{Process: true}, time.Hour))
	c := at(t, connection.Load().(string), nil)
	narrow := c.open(t, queue, nil)
	a.send(t, queue, "z")
	settle(t, receive(t, narrow, 1)[0], triggers.Verdict{Kind: triggers.Retry})
	if d := receive(t, narrow, 1)[0]; d.Message.Attempt != 2 {
		t.Errorf("attempt %d", d.Message.Attempt)
	} else {
		done(t, d)
	}
	if _, err := narrow.Backlog(t.Context()); err == nil || !strings.Contains(err.Error(), "Storage Queue Data Reader, a signature the permission r (read)") {
		t.Errorf("%v", err)
	}
	s, err := NewSender(SenderConfig{Account: c.Account, Queue: queue, Encoding: Text})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.Send(t.Context(), &triggers.Message{}), s.Flush(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "Storage Queue Data Message Sender, a signature the permission a (add)") {
		t.Errorf("%v", err)
	}

	// A key that is none of the account's.
	wrong := at(t, strings.Replace(a.connection, emulator.Key, "d3Jvbmc=", 1), nil)
	if _, err := Open(t.Context(), wrong.config(t, queue)); err == nil || !strings.Contains(err.Error(), "the key or signature is wrong") {
		t.Errorf("%v", err)
	}
}

// otherWay is a test's account with another kind of access.
type otherWay struct {
	*account
	other *Account
}

func TestAnAPIVersionThatTheServerDoesNotKnow(t *testing.T) {
	t.Parallel()
	a := emulated(t)
	queue := a.newQueue(t)
	a.SetNewestVersion("2024-11-04")
	_, err := Open(t.Context(), a.config(t, queue))
	if err == nil || !strings.Contains(err.Error(), "2026-04-06") || !strings.Contains(err.Error(), "--skipApiVersionCheck") {
		t.Errorf("%v", err)
	}
}

func (a *otherWay) config(t testing.TB, queue string) Config {
	c := a.account.config(t, queue)
	c.Account = a.other
	return c
}

func (a *otherWay) open(t testing.TB, queue string) *trigger {
	t.Helper()
	return a.account.open(t, queue, func(c *Config) { c.Account = a.other })
}
