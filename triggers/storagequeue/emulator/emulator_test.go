package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"go.uber.org/goleak"

	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) (e *emulator.Emulator, connection string) {
	t.Helper()
	e = emulator.New(emulator.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return e, emulator.ConnectionString(l.Addr().String())
}

// said is the short form of an answer: the error's code, or the result.
func said(err error, values ...any) string {
	var refused *azcore.ResponseError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("%d %s", refused.StatusCode, refused.ErrorCode)
	case err != nil:
		return err.Error()
	}
	return strings.TrimSpace(fmt.Sprintln(values...))
}

func ptr[T any](v T) *T { return &v }

// answers sends the same requests to any server, and records the answers.
func answers(t *testing.T, connection string) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := func(name string) *azqueue.QueueClient {
		c, err := azqueue.NewQueueClientFromConnectionString(connection, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	note := func(what string, err error, values ...any) { out = append(out, what+": "+said(err, values...)) }
	q := client("orders")
	_, err := q.PeekMessage(ctx, nil)
	note("peek into a missing queue", err)
	_, err = q.EnqueueMessage(ctx, "x", nil)
	note("put into a missing queue", err)
	for _, name := range []string{"Upper", "a", "a--b", "-ab", strings.Repeat("a", 64)} {
		_, err = client(name).Create(ctx, nil)
		note("create "+name, err)
	}
	_, err = q.Create(ctx, nil)
	note("create", err)
	_, err = q.Create(ctx, nil)
	note("create again", err)
	_, err = q.Create(ctx, &azqueue.CreateOptions{Metadata: map[string]*string{"a": ptr("b")}})
	note("create with other metadata", err)

	got, err := q.DequeueMessages(ctx, nil)
	note("get from an empty queue", err, len(got.Messages))
	for _, text := range []string{"one", "two", "three"} {
		r, err := q.EnqueueMessage(ctx, text, nil)
		note("put", err, len(r.Messages))
	}
	_, err = q.EnqueueMessage(ctx, "", nil)
	note("put nothing", err)
	_, err = q.EnqueueMessage(ctx, strings.Repeat("x", 64<<10+1), nil)
	note("put too much", err)
	_, err = q.EnqueueMessage(ctx, "x", &azqueue.EnqueueMessageOptions{VisibilityTimeout: ptr(int32(8 * 24 * 3600))})
	note("put for later than a week", err)
	_, err = q.EnqueueMessage(ctx, "x", &azqueue.EnqueueMessageOptions{TimeToLive: ptr(int32(5)), VisibilityTimeout: ptr(int32(5))})
	note("put for when it is over", err)
	_, err = q.EnqueueMessage(ctx, "x", &azqueue.EnqueueMessageOptions{TimeToLive: ptr(int32(0))})
	note("put without a time to live", err)

	properties, err := q.GetProperties(ctx, nil)
	note("count", err, *properties.ApproximateMessagesCount)
	seen, err := q.PeekMessages(ctx, &azqueue.PeekMessagesOptions{NumberOfMessages: ptr(int32(2))})
	note("peek", err, len(seen.Messages), *seen.Messages[0].MessageText, *seen.Messages[1].MessageText, *seen.Messages[0].DequeueCount)
	_, err = q.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{NumberOfMessages: ptr(int32(33))})
	note("get 33", err)
	_, err = q.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{VisibilityTimeout: ptr(int32(0))})
	note("get for no time", err)
	got, err = q.DequeueMessages(ctx, &azqueue.DequeueMessagesOptions{NumberOfMessages: ptr(int32(2)), VisibilityTimeout: ptr(int32(100))})
	note("get two", err, len(got.Messages), *got.Messages[0].MessageText, *got.Messages[0].DequeueCount)
	first, second := got.Messages[0], got.Messages[1]
	updated, err := q.UpdateMessage(ctx, *first.MessageID, *first.PopReceipt, "changed", &azqueue.UpdateMessageOptions{VisibilityTimeout: ptr(int32(0))})
	note("update", err, *updated.PopReceipt != *first.PopReceipt)
	_, err = q.UpdateMessage(ctx, *first.MessageID, *first.PopReceipt, "changed", nil)
	note("update with the old receipt", err)
	_, err = q.DeleteMessage(ctx, *first.MessageID, *first.PopReceipt, nil)
	note("delete with the old receipt", err)
	seen, err = q.PeekMessages(ctx, &azqueue.PeekMessagesOptions{NumberOfMessages: ptr(int32(32))})
	texts := ""
	for _, m := range seen.Messages {
		texts += *m.MessageText + " "
	}
	note("peek at the rest", err, texts)
	_, err = q.DeleteMessage(ctx, *first.MessageID, *updated.PopReceipt, nil)
	note("delete with the new receipt, though it is visible", err)
	_, err = q.DeleteMessage(ctx, *second.MessageID, *second.PopReceipt, nil)
	note("delete", err)
	_, err = q.DeleteMessage(ctx, *second.MessageID, *second.PopReceipt, nil)
	note("delete again", err)
	_, err = q.UpdateMessage(ctx, *second.MessageID, *second.PopReceipt, "x", nil)
	note("update what is deleted", err)
	_, err = q.UpdateMessage(ctx, *second.MessageID, *second.PopReceipt, "x", &azqueue.UpdateMessageOptions{VisibilityTimeout: ptr(int32(8 * 24 * 3600))})
	note("update for later than a week", err)
	forever, err := q.EnqueueMessage(ctx, "x", &azqueue.EnqueueMessageOptions{TimeToLive: ptr(int32(-1))})
	note("put for ever", err, forever.Messages[0].ExpirationTime.Year())
	_, err = q.ClearMessages(ctx, nil)
	note("clear", err)
	properties, err = q.GetProperties(ctx, nil)
	note("count", err, *properties.ApproximateMessagesCount)
	_, err = q.SetMetadata(ctx, &azqueue.SetMetadataOptions{Metadata: map[string]*string{"team": ptr("billing")}})
	note("set metadata", err)
	_, err = q.Delete(ctx, nil)
	note("delete the queue", err)
	_, err = q.Delete(ctx, nil)
	note("delete it again", err)

	service, err := azqueue.NewServiceClientFromConnectionString(connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"list-b", "list-a", "other"} {
		if _, err := client(name).Create(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	listed := ""
	for pages := service.NewListQueuesPager(&azqueue.ListQueuesOptions{Prefix: ptr("list")}); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Queues {
			listed += *item.Name + " "
		}
	}
	note("list", nil, listed)
	return out
}

func TestTheSameAnswersAsAzurite(t *testing.T) {
	azurite := azuritetest.Start(t).ConnectionString()
	_, connection := start(t)
	want, got := answers(t, azurite), answers(t, connection)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Errorf("Azurite says %q; the emulator %q", want[min(i, len(want)-1)], got[min(i, len(got)-1)])
		}
	}
}

// Messages expire, and a queue that had many of them is not slow because of those.
func TestTimeToLive(t *testing.T) {
	e, connection := start(t)
	if err := e.CreateQueue("orders"); err != nil {
		t.Fatal(err)
	}
	if err := e.CreateQueue("orders"); !errors.Is(err, emulator.ErrExists) {
		t.Errorf("%v", err)
	}
	q, err := azqueue.NewQueueClientFromConnectionString(connection, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := q.EnqueueMessage(t.Context(), fmt.Sprint(i), &azqueue.EnqueueMessageOptions{TimeToLive: ptr(int32(60 * (i + 1)))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		ahead time.Duration
		want  int
	}{{59 * time.Second, 2}, {61 * time.Second, 1}, {time.Hour, 0}} {
		e.SetClock(test.ahead)
		if n := e.Len("orders"); n != test.want {
			t.Errorf("after %v there are %d, want %d", test.ahead, n, test.want)
		}
	}
}
