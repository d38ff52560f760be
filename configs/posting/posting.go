// Package posting has the settings of a handler that posts messages to an HTTP app.
package posting

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-run/drover/configs/problems"
	"github.com/drover-run/drover/configs/values"
	"github.com/drover-run/drover/handlers/httphandler"
)

// DefaultConcurrency is how many messages an app has at once.
const DefaultConcurrency = 64

// Handler is an app that receives messages by POST. docs/http.md has the meaning of its responses.
type Handler struct {
	URL         string                   `yaml:"url" required:"true" desc:"URL to post each message to: http://127.0.0.1:8080/orders, https://..., or unix:/run/app.sock:/orders"`
	Ready       string                   `yaml:"ready" desc:"URL that returns 2xx when the app is ready; no message is received before; by default the app is ready when it accepts connections"`
	CloudEvents string                   `yaml:"cloudevents" default:"binary" enum:"binary,structured,off" desc:"form of the request: binary is the unchanged body with headers; structured is JSON; off is only the body"`
	Format      string                   `yaml:"format" enum:"azure" desc:"instead of cloudevents: azure is the contract of custom handlers of Azure Functions"`
	Binding     string                   `yaml:"binding" desc:"format azure: name of the trigger's binding in function.json"`
	DataType    string                   `yaml:"data_type" default:"string" enum:"string,binary,json" desc:"format azure: the trigger's dataType in function.json; binary sends the body in base64; json sends it unchanged, as a timer's is"`
	Result      string                   `yaml:"result" desc:"format azure: output binding whose value is the function's result, $return for the ReturnValue; by default the ReturnValue, else the outputs"`
	Batch       *Batch                   `yaml:"batch" desc:"post several messages in one request; the answer has a result for each"`
	Headers     map[string]values.Secret `yaml:"headers" desc:"headers added to each request, such as Authorization; usually ${NAME} or file:PATH"`
	Status      map[string]string        `yaml:"status" desc:"what an answer means, by status or class, instead of the defaults, such as 404: reject or 5xx: retry; values are done, retry, reject and pause"`
	MaxResponse values.Size              `yaml:"max_response" default:"1MiB" min:"1B" max:"128MiB" desc:"a larger answer fails the attempt"`
	HTTP2       bool                     `yaml:"http2" default:"false" desc:"use HTTP/2 without TLS"`
	TLS         *values.TLS              `yaml:"tls" desc:"https: TLS settings of the connection; by default the system's root certificates are used"`

	// App is an app with a Server, if drover starts the program that gets the messages. Then only the
	// path of URL counts.
	App string `yaml:"-"`
	// Outputs are the output bindings of a function of a function app, each of which is a named output
	// of the function. Reply is the binding with its response, if HTTP requests run it. Forward passes
	// these on unchanged.
	Outputs []string `yaml:"-"`
	Reply   string   `yaml:"-"`
	Forward bool     `yaml:"-"`
}

// Server is the program of an app that is a web server: a custom handler of Azure Functions.
type Server struct {
	// Program is a path, relative to the app or absolute, or the name of a program in PATH.
	Program   string
	Arguments []string
	// Dir is the working directory.
	Dir string
	// Port is the port on which it listens; 0 is a free one.
	Port int
	// From is the place of these settings, as text.
	From string
}

// Batch has the settings of requests with several messages.
type Batch struct {
	Max      int             `yaml:"max" default:"100" min:"1" max:"10000" desc:"maximum number of messages in one request"`
	MaxBytes values.Size     `yaml:"max_bytes" default:"4MiB" min:"1KiB" max:"128MiB" desc:"maximum body of one request; a larger message is sent alone"`
	Wait     values.Duration `yaml:"wait" default:"20ms" min:"0s" max:"1m" desc:"how long the first message of a request waits for more; it does not wait if no more can arrive"`
	Format   string          `yaml:"format" default:"json" enum:"json,multipart" desc:"json is an array of CloudEvents, or of plain objects if cloudevents is off; multipart has one part per message, in the form of a single request"`
}

var statusForm = regexp.MustCompile(`^[2-5]([0-9][0-9]|xx)$`)

// ownHeaders are the headers that set the end of a request, and the state of its connection.
var ownHeaders = []string{"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

// verdicts are the possible meanings of a status.
var verdicts = []string{string(httphandler.Done), string(httphandler.Retry), string(httphandler.Reject), string(httphandler.Pause)}

// CheckRequests checks all keys. path is the path of the settings.
func (h *Handler) CheckRequests(x *problems.Source, path string) {
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
	h.checkFormat(x, path)
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		if !values.ValidHeader(name, h.Headers[name]) {
			x.Wrong(path+".headers."+name, "not a valid header; use letters, digits and hyphens, and a value of one line")
		}
		if slices.Contains(ownHeaders, strings.ToLower(name)) {
			x.Wrong(path+".headers."+name, "drover sets this header itself; remove it")
		}
	}
	for _, status := range slices.Sorted(maps.Keys(h.Status)) {
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

// checkFormat checks the keys that define the form of a request.
func (h *Handler) checkFormat(x *problems.Source, path string) {
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

// String describes the requests.
func (h *Handler) String() string {
	text := "post to " + h.URL
	if h.Batch != nil {
		text = fmt.Sprintf("post up to %d together to %s", h.Batch.Max, h.URL)
	}
	if h.Format != "" {
		text = "invoke the custom handler at " + h.URL
	}
	if h.App != "" {
		text = "invoke the custom handler of app " + h.App
	}
	if h.Ready != "" {
		text += ", while " + h.Ready + " returns 2xx"
	}
	return text
}
