package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-run/drover/handlers"
	"github.com/drover-run/drover/triggers"
)

// message returns a message like a source.
func message(body string) *triggers.Message {
	return &triggers.Message{ID: "1", Body: []byte(body), Attempt: 1}
}

func ExampleFunc() {
	resize := handlers.Func(func(_ context.Context, m *triggers.Message) ([]byte, error) {
		return fmt.Appendf(nil, "%s, resized", m.Body), nil // the result goes to the function's output
	})
	result, err := resize.Handle(context.Background(), message("cat.jpg"))
	fmt.Printf("%s, %v\n", result, err)
	// Output: cat.jpg, resized, <nil>
}

func ExampleJSON() {
	type Order struct {
		ID    int    `json:"id"`
		Email string `json:"email"`
	}
	orders := handlers.JSON(func(ctx context.Context, o Order) error {
		fmt.Printf("order %d of %s, attempt %d\n", o.ID, o.Email, handlers.MessageOf(ctx).Attempt)
		return nil
	})
	_, _ = orders.Handle(context.Background(), message(`{"id": 7, "email": "ann@example.com"}`))

	_, err := orders.Handle(context.Background(), message(`{"id": "seven"}`))
	fmt.Println(handlers.Rejected(err)) // to the dead letters at once: a retry would not help
	// Output:
	// order 7 of ann@example.com, attempt 1
	// true
}

func ExampleJSONResult() {
	type Order struct{ Prices []int }
	type Receipt struct{ Total int }
	orders := handlers.JSONResult(func(_ context.Context, o Order) (Receipt, error) {
		var r Receipt
		for _, p := range o.Prices {
			r.Total += p
		}
		return r, nil
	})
	result, _ := orders.Handle(context.Background(), message(`{"Prices": [5, 8]}`))
	fmt.Printf("%s\n", result)
	// Output: {"Total":13}
}

func ExampleJSONBatch() {
	type Reading struct{ Celsius float64 }
	readings := handlers.JSONBatch(func(_ context.Context, batch []handlers.Decoded[Reading]) ([]handlers.Result, error) {
		results := make([]handlers.Result, len(batch)) // one for each message, in their order
		for i, each := range batch {
			if each.Body.Celsius < -273.15 {
				results[i].Err = handlers.Reject(errors.New("colder than possible"))
			}
		}
		fmt.Println(len(batch), "readings stored") // in one statement
		return results, nil
	})
	batch, _ := readings.HandleBatch(context.Background(), []*triggers.Message{
		message(`{"Celsius": 21.5}`), message(`no JSON`), message(`{"Celsius": -300}`),
	})
	for _, result := range batch.Each {
		fmt.Println(result.Err)
	}
	// Output:
	// 2 readings stored
	// <nil>
	// the body does not fit handlers_test.Reading: invalid character 'o' in literal null (expecting 'u')
	// colder than possible
}

func ExampleReject() {
	pay := handlers.Func(func(_ context.Context, m *triggers.Message) ([]byte, error) {
		switch string(m.Body) {
		case "":
			return nil, handlers.Reject(errors.New("empty")) // to the dead letters, without a retry
		case "busy":
			return nil, handlers.RetryAfter(time.Minute, errors.New("the bank is busy")) // again in a minute
		case "fails":
			return nil, errors.New("no answer") // again with backoff, as the function's Retry says
		}
		return nil, nil
	})
	for _, body := range []string{"", "busy", "fails", "ok"} {
		_, err := pay.Handle(context.Background(), message(body))
		after, asked := handlers.RetryDelay(err)
		fmt.Printf("%q: rejected %v, delay %v %v\n", body, handlers.Rejected(err), after, asked)
	}
	// Output:
	// "": rejected true, delay 0s false
	// "busy": rejected false, delay 1m0s true
	// "fails": rejected false, delay 0s false
	// "ok": rejected false, delay 0s false
}
