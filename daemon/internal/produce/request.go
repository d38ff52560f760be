package produce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/triggers"
)

const (
	// maxBody bounds a body, in bytes: none of drover's sources accepts larger messages.
	maxBody = 64 << 20
	// sendLimit bounds how long a request waits for the source.
	sendLimit = 30 * time.Second
)

// bodies bounds the total size of the bodies of concurrent requests.
var bodies = semaphore.NewWeighted(2 * maxBody)

// Params describes the query of a request, for the OpenAPI document.
var Params = []admin.Param{
	{Name: "header", Help: "a header of the message, as NAME=VALUE; may be repeated", Repeated: true},
	{Name: "property", Help: "a property of the message, as NAME=VALUE, such as correlation_id=7; may be repeated", Repeated: true},
	{Name: "id", Help: "the message's ID; NATS, and Service Bus with duplicate detection, drop a second message with the same ID"},
	{Name: "session", Help: "the session, for Service Bus queues and subscriptions with sessions"},
	{Name: "subject", Help: "the subject, for a function that consumes a pattern of NATS subjects"},
	{Name: "at", Help: "when the message can be received", Format: "date-time"},
	{Name: "delay", Help: "how long the message cannot be received, such as 30s or 2h"},
}

// badRequest is the error of an invalid request.
type badRequest struct{ text string }

func (e badRequest) Error() string { return e.text }

func badf(format string, args ...any) error { return badRequest{fmt.Sprintf(format, args...)} }

// Handle serves a request to send its body as a message.
func (p *Producer) Handle(w http.ResponseWriter, r *http.Request) {
	if why := p.cannotSend(); why != "" {
		admin.WriteError(w, http.StatusUnprocessableEntity, "function %s %s", p.cfg.Function, why)
		return
	}
	m, due, err := p.parse(r, time.Now())
	if err != nil {
		admin.WriteError(w, http.StatusBadRequest, "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), sendLimit)
	defer cancel()
	done, err := p.readBody(ctx, w, r, m)
	if err == nil {
		defer done()
		var id string
		if id, err = p.Send(ctx, m); err == nil {
			admin.WriteJSON(w, http.StatusOK, api.Sent{Function: p.cfg.Function, ID: id, ScheduledAt: due})
			return
		}
		err = fmt.Errorf("function %s: %w", p.cfg.Function, err)
	}
	admin.WriteError(w, statusOf(err), "%v", err)
}

// statusOf returns the status of an answer.
func statusOf(err error) int {
	switch {
	case errors.Is(err, triggers.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, new(badRequest)), isSendersFault(err):
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}

// readBody sets the body of a message. The caller calls done when the message is sent.
func (p *Producer) readBody(ctx context.Context, w http.ResponseWriter, r *http.Request, m *triggers.Message) (done func(), err error) {
	limit := int64(maxBody)
	if p.cfg.MaxBody > 0 {
		limit = min(limit, p.cfg.MaxBody)
	}
	if r.ContentLength > limit {
		return nil, fmt.Errorf("the body has %d bytes, but function %s takes at most %d: %w", r.ContentLength, p.cfg.Function, limit, triggers.ErrTooLarge)
	}
	room := r.ContentLength
	if room < 0 {
		room = limit
	}
	if err := bodies.Acquire(ctx, room); err != nil {
		return nil, fmt.Errorf("too many messages are being sent at once: %w", err)
	}
	m.Body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return func() { bodies.Release(room) }, nil
	}
	bodies.Release(room)
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, fmt.Errorf("the body has more than %d bytes, the limit of function %s: %w", limit, p.cfg.Function, triggers.ErrTooLarge)
	}
	return nil, badf("the body was not received completely: %v", err)
}

// parse reads the query and the content type of a request. due is when the message can be received;
// zero: at once.
func (p *Producer) parse(r *http.Request, now time.Time) (m *triggers.Message, due time.Time, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, due, badf("the query cannot be read: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		known := slices.IndexFunc(Params, func(p admin.Param) bool { return p.Name == name })
		switch {
		case known < 0:
			return nil, due, badf("unknown parameter %q; the parameters are %s", name, paramNames())
		case !Params[known].Repeated && len(query[name]) > 1:
			return nil, due, badf("%s is given %d times", name, len(query[name]))
		}
	}
	m = &triggers.Message{OrderingKey: query.Get("session")}
	if m.Attributes, err = pairs("header", query["header"]); err != nil {
		return nil, due, err
	}
	properties, err := pairs("property", query["property"])
	if err != nil {
		return nil, due, err
	}
	if properties == nil {
		properties = make(map[string]string)
	}
	if due, err = dueTime(query, now); err != nil {
		return nil, due, err
	}
	for name, value := range map[string]string{triggers.MessageID: query.Get("id"), triggers.ScheduledAt: formatTime(due)} {
		if _, given := properties[name]; given && value != "" {
			return nil, due, badf("the property %s is set by two parameters", name)
		} else if value != "" {
			properties[name] = value
		}
	}
	if err := p.check(m, properties, query.Get("subject"), due, now); err != nil {
		return nil, due, err
	}
	// Curl and browsers send this type by default.
	if kind := r.Header.Get("Content-Type"); properties[triggers.ContentType] == "" && p.accepts(triggers.ContentType) && kind != "" {
		if base, _, err := mime.ParseMediaType(kind); err != nil || base != "application/x-www-form-urlencoded" {
			properties[triggers.ContentType] = kind
		}
	}
	m.ID = properties[triggers.MessageID]
	if session := properties[triggers.SessionID]; session != "" {
		m.OrderingKey = session
	}
	if len(properties) > 0 {
		m.Origin = triggers.Known(properties)
	}
	return m, due, nil
}

func paramNames() string {
	var names []string
	for _, p := range Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// pairs reads NAME=VALUE parameters.
func pairs(param string, values []string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(values))
	for _, text := range values {
		name, value, found := strings.Cut(text, "=")
		if _, twice := out[name]; !found || name == "" || twice {
			return nil, badf("%s is %q; write it as NAME=VALUE, with each name only once", param, text)
		}
		out[name] = value
	}
	return out, nil
}

// dueTime returns when the message can be received; zero: at once.
func dueTime(query url.Values, now time.Time) (due time.Time, err error) {
	at, delay := query.Get("at"), query.Get("delay")
	switch {
	case at != "" && delay != "":
		return due, badf("give at or delay, not both")
	case at != "":
		if due, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return due, badf("at is %q; write it as 2026-01-31T08:00:00Z", at)
		}
	case delay != "":
		length, err := time.ParseDuration(delay)
		if err != nil || length < 0 {
			return due, badf("delay is %q; write it as 30s or 2h", delay)
		}
		if length > 0 {
			due = now.Add(length)
		}
	}
	return due, nil
}

func formatTime(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

// accepts reports whether the source takes a property.
func (p *Producer) accepts(property string) bool {
	return p.cfg.Given != nil || p.cfg.Source.Headers && p.cfg.Source.Property(property)
}

// check sets the subject of a message, and returns an error if the source does not accept a part of it.
func (p *Producer) check(m *triggers.Message, properties map[string]string, subject string, due, now time.Time) error {
	in := p.cfg.Source
	for name := range properties {
		switch {
		case !slices.Contains(triggers.Settable, name):
			return badf("%q is not a property that a sender can set; these are %s", name, strings.Join(triggers.Settable, ", "))
		case name == triggers.ScheduledAt && !due.IsZero(): // checked below
		case p.cfg.Given == nil && !in.Headers:
			return badf("%s has no properties and assigns IDs itself: a message there has only a body", in.Name)
		case !p.accepts(name):
			return badf("%s has no header for the property %s; use the parameter header", in.Name, name)
		}
	}
	m.Subject = in.Target.Address
	switch {
	case p.cfg.Given != nil:
		m.Subject = subject
	case !in.Headers && m.Attributes != nil:
		return badf("%s has no headers: a message there has only a body", in.Name)
	case !in.Sessions && m.OrderingKey != "":
		return badf("%s has no sessions", in.Name)
	case in.AcceptsAddress == nil && subject != "" && subject != m.Subject:
		return badf("the messages of function %s have the subject %s", p.cfg.Function, m.Subject)
	case in.AcceptsAddress != nil && !in.AcceptsAddress(subject):
		return badf("subject is %q; function %s %s", subject, p.cfg.Function, in.CannotSend)
	case in.AcceptsAddress != nil:
		m.Subject = subject
	}
	if due.IsZero() {
		return nil
	}
	if err := in.CheckTime(due, now); err != nil {
		return badf("%v", err)
	}
	return nil
}
