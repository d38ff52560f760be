package emulator

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
)

// maxAdminBody bounds a description, in bytes.
const maxAdminBody = 1 << 20

// adminAPI creates, shows and deletes queues, topics and subscriptions, with Atom over HTTP. It also
// accepts messages.
type adminAPI struct {
	broker.Controls
	host *host
}

// ServeHTTP implements http.Handler.
func (a *adminAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(r.URL.Path, "/")
	entity, sends := isRestSend(r, path)
	if keys := a.host.accessKeys(); len(keys) > 0 {
		needs := claimManage
		if sends {
			needs = claimSend
		}
		k, err := checkSAS(r.Header.Get("Authorization"), keys, a.host.Now())
		if err == nil && !k.may(needs) {
			err = fmt.Errorf("MissingClaim: the %s claim is required for this operation", needs)
		}
		if err != nil {
			adminError(w, http.StatusUnauthorized, err)
			return
		}
	}
	if sends {
		a.restSend(w, r, entity)
		return
	}
	switch r.Method {
	case http.MethodPut:
		a.adminPut(w, r, path)
	case http.MethodGet:
		a.adminGet(w, r.Host, path)
	case http.MethodDelete:
		if err := a.Delete(path); err != nil {
			adminError(w, http.StatusNotFound, err)
		}
	default:
		adminError(w, http.StatusMethodNotAllowed, fmt.Errorf("the method %s is not allowed", r.Method))
	}
}

func adminError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.WriteHeader(status)
	writeXML(w, struct {
		XMLName xml.Name `xml:"Error"`
		Code    int
		Detail  string
	}{Code: status, Detail: err.Error()})
}

func writeXML(w io.Writer, v any) {
	_ = xml.NewEncoder(w).Encode(v) // the other side is gone, or our own types do not encode
}

func (a *adminAPI) adminPut(w http.ResponseWriter, r *http.Request, path string) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	var entry atomEntry
	if err := xml.Unmarshal(data, &entry); err != nil || entry.Content.What == nil {
		adminError(w, http.StatusBadRequest, fmt.Errorf("no description in the body: %w", err))
		return
	}
	d := entry.Content.What
	o, err := d.options()
	if err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	parent, name, isSubscription := cutSubscription(path)
	switch {
	case r.Header.Get("If-Match") != "":
		err = a.update(path, o)
	case isSubscription:
		err = a.CreateSubscription(parent, name, o)
	case d.XMLName.Local == "TopicDescription":
		err = a.CreateTopic(path)
	default:
		err = a.CreateQueue(path, o)
	}
	switch {
	case errors.Is(err, broker.ErrExists):
		adminError(w, http.StatusConflict, err)
	case errors.Is(err, broker.ErrNotFound):
		adminError(w, http.StatusNotFound, err)
	case err != nil:
		adminError(w, http.StatusBadRequest, err)
	default:
		a.describe(w, http.StatusCreated, r.Host, path)
	}
}

// update changes the options of a queue or subscription.
func (a *adminAPI) update(path string, o broker.QueueOptions) error {
	a.host.namespace.Lock()
	defer a.host.namespace.Unlock()
	if t := a.host.namespace.Topic(path); t != nil {
		t.Disabled = o.Disabled
		return nil
	}
	q, cond := a.host.namespace.Queue(path)
	if cond != nil {
		return fmt.Errorf("%s: %w", path, broker.ErrNotFound)
	}
	q.SetOptions(o)
	return nil
}

func (a *adminAPI) adminGet(w http.ResponseWriter, host, path string) {
	if !a.describe(w, http.StatusOK, host, path) {
		// The service returns this feed for a missing entity, not 404.
		writeXML(w, struct {
			XMLName xml.Name `xml:"feed"`
			XMLNS   string   `xml:"xmlns,attr"`
			Title   string   `xml:"title"`
		}{XMLNS: namespaceAtom, Title: "Publicly Listed Services"})
	}
}

// describe answers with the description of an entity, and reports whether it exists.
func (a *adminAPI) describe(w http.ResponseWriter, status int, host, path string) bool {
	a.host.namespace.Lock()
	var d *description
	if t := a.host.namespace.Topic(path); t != nil {
		subscriptions := t.Subscriptions()
		d = &description{CreatedAt: formatTime(t.Created), SubscriptionCount: &subscriptions, CountDetails: &countDetails{XMLNS: namespaceCounts}}
		d.XMLName.Local = "TopicDescription"
	} else if q, cond := a.host.namespace.Queue(path); cond == nil {
		d = describeQueue(q)
	}
	a.host.namespace.Unlock()
	if d == nil {
		return false
	}
	d.XMLNS = namespaceBus
	for _, to := range []*string{&d.ForwardTo, &d.ForwardDeadTo} {
		if *to != "" {
			*to = "https://" + host + "/" + *to
		}
	}
	d.UpdatedAt, d.AccessedAt = d.CreatedAt, d.CreatedAt
	title := path
	if _, name, ok := cutSubscription(path); ok {
		title = name
	}
	entry := atomEntry{XMLNS: namespaceAtom, ID: "https://emulator/" + path, Title: title}
	entry.Content.Type, entry.Content.What = "application/xml", d
	w.Header().Set("Content-Type", "application/atom+xml;type=entry;charset=utf-8")
	w.WriteHeader(status)
	writeXML(w, entry)
	return true
}
