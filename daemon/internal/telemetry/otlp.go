package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// collector sends spans with OTLP over HTTP, as protobuf. It implements otlptrace.Client, for one
// goroutine. The library's own client, otlptracehttp, would link gRPC, which adds 2 MB to the program
// (docs/performance.md).
type collector struct {
	url     string
	headers map[string]string
	agent   string // the User-Agent
	http    *http.Client
	// onFailure is called after each attempt that failed; may be nil.
	onFailure func()
}

// Start implements otlptrace.Client.
func (*collector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (*collector) Stop(context.Context) error { return nil }

// UploadTraces sends one batch. While the collector refuses connections, for example during a restart, it
// retries every spanPause; if the collector is overloaded, with growing pauses. It gives up when ctx or
// spanLimit ends.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// TracesData has the same encoding as ExportTraceServiceRequest, whose package needs gRPC.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encoding spans: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, spanLimit)
	defer cancel()
	pause := spanPause
	for {
		again, err := c.post(ctx, body)
		if err != nil && c.onFailure != nil {
			c.onFailure()
		}
		deadline, _ := ctx.Deadline()
		if err == nil || again < 0 || again > time.Until(deadline) {
			return err
		}
		wait := time.NewTimer(max(pause, again))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			pause *= 2
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		if wait.Stop(); ctx.Err() != nil {
			return err
		}
	}
}

// post sends the body once. If it fails, again is the minimum time until the next attempt; it is
// negative if another attempt cannot help.
func (c *collector) post(ctx context.Context, body []byte) (again time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	request.Header.Set("User-Agent", c.agent)
	for name, value := range c.headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := c.http.Do(request)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return 0, err
		}
		return -1, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxCollectorAnswer+1))
	switch {
	case err != nil:
		return -1, fmt.Errorf("reading the collector's answer: %w", err)
	case len(answer) > maxCollectorAnswer:
		return -1, fmt.Errorf("the collector's answer is longer than %d bytes", maxCollectorAnswer)
	case response.StatusCode/100 == 2:
		return -1, rejectedSpans(response.Header.Get("Content-Type"), answer)
	}
	err = fmt.Errorf("%s answered %s: %s", c.url, response.Status, strings.TrimSpace(string(answer)))
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return retryAfter(response.Header.Get("Retry-After")), err
	}
	return -1, err
}

// retryAfter returns the time of a Retry-After header, in seconds or as a date; 0 without one.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(time.Until(date), 0)
	}
	return 0
}

// rejectedSpans returns an error if the collector has accepted the request but not all spans. The
// answer is an ExportTraceServiceResponse: field 1 is partial_success, which has rejected_spans (1)
// and error_message (2).
func rejectedSpans(contentType string, answer []byte) error {
	if !strings.HasPrefix(contentType, "application/x-protobuf") {
		return nil
	}
	var rejected uint64
	var message string
	err := eachField(answer, func(field protowire.Number, _ uint64, partial []byte) error {
		if field != 1 {
			return nil
		}
		return eachField(partial, func(field protowire.Number, number uint64, text []byte) error {
			switch field {
			case 1:
				rejected = number
			case 2:
				message = string(text)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return fmt.Errorf("decoding the collector's answer: %w", err)
	case rejected > 0:
		return fmt.Errorf("the collector rejected %d spans: %s", rejected, message)
	case message != "":
		return fmt.Errorf("the collector accepted the spans with a warning: %s", message)
	}
	return nil
}

// eachField calls yield for each field of a protobuf message: with its number, if it is a varint,
// or with its bytes.
func eachField(message []byte, yield func(field protowire.Number, number uint64, text []byte) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var number uint64
		var text []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := yield(field, number, text); err != nil {
			return err
		}
	}
	return nil
}
