package emulator

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The admin API: Atom over HTTP, the part of it that makes, shows and deletes
// queues, topics and subscriptions.

// maxAdminBody bounds a description, in bytes.
const maxAdminBody = 1 << 20

// description is a queue, topic or subscription as the admin API has it.
type description struct {
	XMLName           xml.Name
	XMLNS             string        `xml:"xmlns,attr,omitempty"`
	LockDuration      string        `xml:",omitempty"`
	Duplicates        bool          `xml:"RequiresDuplicateDetection,omitempty"`
	DuplicateWindow   string        `xml:"DuplicateDetectionHistoryTimeWindow,omitempty"`
	RequiresSession   bool          `xml:",omitempty"`
	DefaultTTL        string        `xml:"DefaultMessageTimeToLive,omitempty"`
	DeadLetterExpired bool          `xml:"DeadLetteringOnMessageExpiration,omitempty"`
	MaxDeliveryCount  uint32        `xml:",omitempty"`
	SizeInBytes       int           `xml:",omitempty"`
	MessageCount      *int          `xml:",omitempty"`
	Status            string        `xml:",omitempty"`
	SubscriptionCount *int          `xml:",omitempty"`
	ForwardTo         string        `xml:",omitempty"`
	ForwardDeadTo     string        `xml:"ForwardDeadLetteredMessagesTo,omitempty"`
	CreatedAt         string        `xml:",omitempty"`
	UpdatedAt         string        `xml:",omitempty"`
	AccessedAt        string        `xml:",omitempty"`
	CountDetails      *countDetails `xml:",omitempty"`
}

type countDetails struct {
	XMLNS     string `xml:"xmlns,attr"`
	Active    int    `xml:"ActiveMessageCount"`
	Dead      int    `xml:"DeadLetterMessageCount"`
	Scheduled int    `xml:"ScheduledMessageCount"`
	Transfer  int    `xml:"TransferMessageCount"`
	DeadTrans int    `xml:"TransferDeadLetterMessageCount"`
}

const (
	namespaceAtom   = "http://www.w3.org/2005/Atom"
	namespaceBus    = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
	namespaceCounts = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
)

type atomEntry struct {
	XMLName xml.Name `xml:"entry"`
	XMLNS   string   `xml:"xmlns,attr,omitempty"`
	ID      string   `xml:"id,omitempty"`
	Title   string   `xml:"title,omitempty"`
	Content struct {
		Type string       `xml:"type,attr"`
		What *description `xml:",any"`
	} `xml:"content"`
}

// Admin is the admin API. The clients of Azure ask for it by HTTPS.
func (e *Emulator) Admin() http.Handler { return http.HandlerFunc(e.admin) }

func (e *Emulator) admin(w http.ResponseWriter, r *http.Request) {
	if len(e.options.Keys) > 0 {
		k, err := checkSAS(r.Header.Get("Authorization"), e.options.Keys, e.now())
		if err == nil && !k.Manage {
			err = errors.New("MissingClaim: the Manage claim is required for this operation")
		}
		if err != nil {
			adminError(w, http.StatusUnauthorized, err)
			return
		}
	}
	path := strings.Trim(r.URL.Path, "/")
	switch r.Method {
	case http.MethodPut:
		e.adminPut(w, r, path)
	case http.MethodGet:
		e.adminGet(w, r.Host, path)
	case http.MethodDelete:
		if err := e.Delete(path); err != nil {
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

func (e *Emulator) adminPut(w http.ResponseWriter, r *http.Request, path string) {
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
		err = e.update(path, o)
	case isSubscription:
		err = e.CreateSubscription(parent, name, o)
	case d.XMLName.Local == "TopicDescription":
		err = e.CreateTopic(path)
	default:
		err = e.CreateQueue(path, o)
	}
	switch {
	case errors.Is(err, ErrExists):
		adminError(w, http.StatusConflict, err)
	case errors.Is(err, ErrNotFound):
		adminError(w, http.StatusNotFound, err)
	case err != nil:
		adminError(w, http.StatusBadRequest, err)
	default:
		e.describe(w, http.StatusCreated, r.Host, path)
	}
}

// cutSubscription cuts topic/Subscriptions/name.
func cutSubscription(path string) (topic, name string, ok bool) {
	i := strings.Index(strings.ToLower(path), "/subscriptions/")
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+len("/subscriptions/"):], true
}

// update changes the options of a queue or subscription.
func (e *Emulator) update(path string, o QueueOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.topics[strings.ToLower(path)]; t != nil {
		t.disabled = o.Disabled
		return nil
	}
	q, cond := e.find(path)
	if cond != nil {
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	q.options = o.withDefaults()
	return nil
}

func (e *Emulator) adminGet(w http.ResponseWriter, host, path string) {
	if !e.describe(w, http.StatusOK, host, path) {
		// The service answers for what is not there with this feed, not with 404.
		writeXML(w, struct {
			XMLName xml.Name `xml:"feed"`
			XMLNS   string   `xml:"xmlns,attr"`
			Title   string   `xml:"title"`
		}{XMLNS: namespaceAtom, Title: "Publicly Listed Services"})
	}
}

// describe answers with what an entity is; it reports whether there is one.
func (e *Emulator) describe(w http.ResponseWriter, status int, host, path string) bool {
	e.mu.Lock()
	var d *description
	if t := e.topics[strings.ToLower(path)]; t != nil {
		subscriptions := len(t.subscriptions)
		d = &description{CreatedAt: formatTime(t.created), SubscriptionCount: &subscriptions, CountDetails: &countDetails{XMLNS: namespaceCounts}}
		d.XMLName.Local = "TopicDescription"
	} else if q, cond := e.find(path); cond == nil {
		d = q.describe()
	}
	e.mu.Unlock()
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

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (q *queue) describe() *description {
	active, scheduled, dead, bytes := q.counts()
	all := active + scheduled + dead
	d := &description{
		LockDuration: formatDuration(q.options.LockDuration), RequiresSession: q.options.RequiresSession,
		DeadLetterExpired: q.options.DeadLetterExpired, MaxDeliveryCount: q.options.MaxDeliveryCount,
		ForwardTo: q.options.ForwardTo, ForwardDeadTo: q.options.ForwardDeadTo,
		Status: "Active", MessageCount: &all, SizeInBytes: bytes, CreatedAt: formatTime(q.created),
		CountDetails: &countDetails{XMLNS: namespaceCounts, Active: active, Dead: dead, Scheduled: scheduled},
	}
	if q.options.DuplicateWindow > 0 {
		d.Duplicates, d.DuplicateWindow = true, formatDuration(q.options.DuplicateWindow)
	}
	if q.options.DefaultTTL > 0 {
		d.DefaultTTL = formatDuration(q.options.DefaultTTL)
	}
	if q.options.Disabled {
		d.Status = "Disabled"
	}
	d.XMLName.Local = "QueueDescription"
	if _, _, ok := cutSubscription(q.path); ok {
		d.XMLName.Local = "SubscriptionDescription"
	}
	return d
}

func (d *description) options() (o QueueOptions, err error) {
	o = QueueOptions{
		RequiresSession: d.RequiresSession, DeadLetterExpired: d.DeadLetterExpired, MaxDeliveryCount: d.MaxDeliveryCount,
		ForwardTo: entityOf(d.ForwardTo), ForwardDeadTo: entityOf(d.ForwardDeadTo), Disabled: d.Status == "Disabled",
	}
	if o.LockDuration, err = parseDuration(d.LockDuration); err != nil {
		return o, fmt.Errorf("LockDuration: %w", err)
	}
	if o.LockDuration > 5*time.Minute {
		return o, fmt.Errorf("LockDuration: %v is more than five minutes", o.LockDuration)
	}
	if d.Duplicates {
		if o.DuplicateWindow, err = parseDuration(d.DuplicateWindow); err != nil {
			return o, fmt.Errorf("DuplicateDetectionHistoryTimeWindow: %w", err)
		}
		if o.DuplicateWindow == 0 {
			o.DuplicateWindow = 10 * time.Minute // the service's default
		}
	}
	if o.DefaultTTL, err = parseDuration(d.DefaultTTL); err != nil {
		return o, fmt.Errorf("DefaultMessageTimeToLive: %w", err)
	}
	return o, nil
}

// entityOf is the name in a URI of an entity.
func entityOf(uri string) string {
	if u, err := url.Parse(uri); err == nil && u.Host != "" {
		return strings.Trim(u.Path, "/")
	}
	return uri
}

var duration = regexp.MustCompile(`^P(?:(\d{1,8})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,8}(?:\.\d+)?)S)?)?$`)

// forever is from how many days on a duration is none.
const forever = 36500

// parseDuration reads ISO 8601; 0 for nothing, and for what never comes.
func parseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	m := duration.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no duration such as PT1M", text)
	}
	var seconds float64
	for i, unit := range []float64{86400, 3600, 60, 1} {
		if m[i+1] != "" {
			n, err := strconv.ParseFloat(m[i+1], 64)
			if err != nil {
				return 0, fmt.Errorf("%q is no duration: %w", text, err)
			}
			seconds += n * unit
		}
	}
	if seconds >= forever*86400 {
		return 0, nil
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func formatDuration(d time.Duration) string {
	return "PT" + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "S"
}
