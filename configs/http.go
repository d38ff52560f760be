package configs

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/handlers/httphandler"
)

var (
	statusForm = regexp.MustCompile(`^[2-5]([0-9][0-9]|xx)$`)
	headerForm = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)
)

// ownHeaders are the headers that set the end of a request, and the state of its connection.
var ownHeaders = []string{"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

// verdicts are the possible meanings of a status.
var verdicts = []string{string(httphandler.Done), string(httphandler.Retry), string(httphandler.Reject), string(httphandler.Pause)}

func (x *completion) httpHandler(path string, h *HTTPHandler) {
	for _, key := range []string{"url", "ready"} {
		target := h.URL
		if key == "ready" {
			if target = h.Ready; target == "" {
				continue
			}
		}
		if parsed, err := url.Parse(target); err == nil && parsed.User != nil {
			x.Secrets = append(x.Secrets, parsed.User.String())
		}
		if _, _, err := httphandler.SplitURL(target); err != nil {
			x.Wrong(path+"."+key, "%v", err)
		}
	}
	x.httpFormat(path, h)
	for _, name := range names(h.Headers) {
		if !headerForm.MatchString(name) || strings.ContainsAny(string(h.Headers[name]), "\r\n\x00") {
			x.Wrong(path+".headers."+name, "not a valid header; use letters, digits and hyphens, and a value of one line")
		}
		if slices.Contains(ownHeaders, strings.ToLower(name)) {
			x.Wrong(path+".headers."+name, "drover sets this header itself; remove it")
		}
	}
	for _, status := range names(h.Status) {
		if !statusForm.MatchString(status) {
			x.Wrong(path+".status."+status, "%q is not a status; write 404, or 4xx", status)
		}
		if !slices.Contains(verdicts, h.Status[status]) {
			x.Wrong(path+".status."+status, "%q is not a verdict; use one of %s", h.Status[status], strings.Join(verdicts, ", "))
		}
	}
	if t := h.TLS; t != nil {
		if !strings.HasPrefix(h.URL, "https:") && (t.CA != "" || t.Cert != "") {
			x.Wrong(path+".tls", "it requires an https URL")
		}
		if (t.Cert == "") != (t.Key == "") {
			x.Wrong(path+".tls", "set both cert and key")
		}
	}
}

// httpFormat checks the keys that define the form of a request.
func (x *completion) httpFormat(path string, h *HTTPHandler) {
	if h.Format == "" {
		for _, key := range []string{"binding", "data_type", "result"} {
			if x.Given(path + "." + key) {
				x.Wrong(path+"."+key, "it requires format: azure")
			}
		}
		return
	}
	if x.Given(path + ".cloudevents") {
		x.Wrong(path+".cloudevents", "remove it or format: both define the form of a request")
	}
	if h.Batch != nil {
		x.Wrong(path+".batch", "remove it or format: a custom handler receives one message at a time")
	}
	if h.Binding == "" {
		x.Wrong(path, "format azure requires binding: the name of the trigger's binding in function.json, such as myQueueItem")
	}
}
