package cli

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
)

// protobuf is the header with which Prometheus requests native histograms.
const protobuf = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// scrape requests the metrics as Protocol Buffers.
func scrape(t *testing.T, address string) map[string]*dto.MetricFamily {
	t.Helper()
	status, text := ask(t, address, "/metrics", protobuf)
	if status != 200 {
		t.Fatalf("status %d: %s", status, text)
	}
	out := make(map[string]*dto.MetricFamily)
	for in := bufio.NewReader(strings.NewReader(text)); ; {
		var family dto.MetricFamily
		if err := protodelim.UnmarshalFrom(in, &family); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out[family.GetName()] = &family
	}
}
