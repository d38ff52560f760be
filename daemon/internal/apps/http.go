package apps

import (
	"strconv"
	"strings"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/posting"
	"github.com/drover-run/drover/daemon/internal/tlsconfig"
	"github.com/drover-run/drover/handlers/httphandler"
)

// defaultHTTPBatches is how many batches an app has at once: one is handled while the next gathers.
const defaultHTTPBatches = 2

// newHTTPHandler returns the handler of a function that posts its messages to an HTTP app.
func (s *Set) newHTTPHandler(f *Function, settings configs.Function) (*httphandler.Handler, error) {
	h := settings.Handler.HTTP
	cfg := httphandler.Config{
		Function: f.Name, URL: s.urlOf(h), Ready: h.Ready, Events: httphandler.Events(h.CloudEvents),
		Headers: make(map[string]string), Verdicts: make(map[int]httphandler.Verdict),
		Slots: settings.Concurrency, MaxResponse: int64(h.MaxResponse), HTTP2: h.HTTP2, Log: f.Log,
	}
	if cfg.Slots == 0 {
		cfg.Slots = posting.DefaultConcurrency
		if h.Batch != nil {
			cfg.Slots = max(cfg.Slots, defaultHTTPBatches*h.Batch.Max)
		}
	}
	if b := h.Batch; b != nil {
		cfg.Batch = &httphandler.Batch{Max: b.Max, MaxBytes: int64(b.MaxBytes), Wait: b.Wait.D(), Multipart: b.Format == "multipart"}
	}
	if h.Format == "azure" {
		cfg.Azure = &httphandler.Azure{Binding: h.Binding, Binary: h.DataType == "binary", JSON: h.DataType == "json", Output: h.Result, Named: h.App != "", Outputs: h.Outputs, Reply: h.Reply, Forward: h.Forward}
		if !cfg.Azure.Named {
			cfg.Azure.Outputs = settings.Output.OutputNames()
		}
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
	if cfg.TLS, err = tlsconfig.ForClient(h.TLS); err != nil {
		return nil, err
	}
	return httphandler.New(cfg)
}
