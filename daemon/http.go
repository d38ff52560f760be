package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/handlers/httphandler"
)

// defaultHTTPConcurrency is how many messages an app has at once, and of batches
// defaultHTTPBatches: one is handled while the next gathers.
const (
	defaultHTTPConcurrency = 64
	defaultHTTPBatches     = 2
)

// newHTTPHandler makes the handler of a function that posts its messages.
func newHTTPHandler(f *function, settings configs.Function) (*httphandler.Handler, error) {
	h := settings.Handler.HTTP
	cfg := httphandler.Config{
		Function: f.Name, URL: h.URL, Ready: h.Ready, Events: httphandler.Events(h.CloudEvents),
		Headers: make(map[string]string), Verdicts: make(map[int]httphandler.Verdict),
		Slots: settings.Concurrency, MaxResponse: int64(h.MaxResponse), HTTP2: h.HTTP2, Log: f.Log,
	}
	if cfg.Slots == 0 {
		cfg.Slots = defaultHTTPConcurrency
		if h.Batch != nil {
			cfg.Slots = max(cfg.Slots, defaultHTTPBatches*h.Batch.Max)
		}
	}
	if b := h.Batch; b != nil {
		cfg.Batch = &httphandler.Batch{Max: b.Max, MaxBytes: int64(b.MaxBytes), Wait: b.Wait.D(), Multipart: b.Format == "multipart"}
	}
	if h.Format == "azure" {
		cfg.Azure = &httphandler.Azure{Binding: h.Binding, Binary: h.DataType == "binary", Output: h.Result}
	}
	for name, value := range h.Headers {
		cfg.Headers[name] = string(value)
	}
	for status, verdict := range h.Status {
		if class, found := strings.CutSuffix(status, "xx"); found {
			first, _ := strconv.Atoi(class) // checked before
			for n := first * 100; n < first*100+100; n++ {
				if _, single := h.Status[strconv.Itoa(n)]; !single {
					cfg.Verdicts[n] = httphandler.Verdict(verdict)
				}
			}
			continue
		}
		n, _ := strconv.Atoi(status) // checked before
		cfg.Verdicts[n] = httphandler.Verdict(verdict)
	}
	var err error
	if cfg.TLS, err = clientTLS(h.TLS); err != nil {
		return nil, err
	}
	return httphandler.New(cfg)
}

// clientTLS is how a connection to an app is encrypted; nil where nothing is said.
func clientTLS(t *configs.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls.ca has no certificate in PEM; did you mean file:PATH?")
		}
	}
	if t.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
