package memory_test

import (
	"context"
	"fmt"
	"time"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/memory"
)

func ExampleQueue() {
	queue := memory.New(time.Minute)
	defer queue.Close()
	queue.Send(triggers.Message{Body: []byte("hello")})

	ctx, source := context.Background(), queue.Trigger()
	got, err := source.Receive(ctx, 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, attempt %d\n", got[0].Message.Body, got[0].Message.Attempt)
	if err := got[0].Settle(ctx, triggers.Verdict{Kind: triggers.Reject, Reason: "no reply expected"}); err != nil {
		fmt.Println(err)
	}
	for _, dead := range queue.Dead() {
		fmt.Printf("%s: %s\n", dead.Message.Body, dead.Verdict.Reason)
	}
	// Output:
	// hello, attempt 1
	// hello: no reply expected
}
