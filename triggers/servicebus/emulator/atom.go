package emulator

import (
	"encoding/xml"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
)

// The admin API describes entities as Atom entries.

// description is a queue, topic or subscription in the format of the admin API.
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

func describeQueue(q *broker.Queue) *description {
	n := q.SizeCounts()
	all := n.Active + n.Scheduled + n.Dead
	d := &description{
		LockDuration: formatDuration(q.Options.LockDuration), RequiresSession: q.Options.RequiresSession,
		DeadLetterExpired: q.Options.DeadLetterExpired, MaxDeliveryCount: q.Options.MaxDeliveryCount,
		ForwardTo: q.Options.ForwardTo, ForwardDeadTo: q.Options.ForwardDeadTo,
		Status: "Active", MessageCount: &all, SizeInBytes: n.Bytes, CreatedAt: formatTime(q.Created),
		CountDetails: &countDetails{XMLNS: namespaceCounts, Active: n.Active, Dead: n.Dead, Scheduled: n.Scheduled},
	}
	if q.Options.DuplicateWindow > 0 {
		d.Duplicates, d.DuplicateWindow = true, formatDuration(q.Options.DuplicateWindow)
	}
	if q.Options.DefaultTTL > 0 {
		d.DefaultTTL = formatDuration(q.Options.DefaultTTL)
	}
	if q.Options.Disabled {
		d.Status = "Disabled"
	}
	d.XMLName.Local = "QueueDescription"
	if _, _, ok := cutSubscription(q.Path); ok {
		d.XMLName.Local = "SubscriptionDescription"
	}
	return d
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// cutSubscription splits topic/Subscriptions/name.
func cutSubscription(path string) (topic, name string, ok bool) {
	i := strings.Index(strings.ToLower(path), "/subscriptions/")
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+len("/subscriptions/"):], true
}

func (d *description) options() (o broker.QueueOptions, err error) {
	o = broker.QueueOptions{
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

// entityOf returns the name in the URI of an entity.
func entityOf(uri string) string {
	if u, err := url.Parse(uri); err == nil && u.Host != "" {
		return strings.Trim(u.Path, "/")
	}
	return uri
}

var duration = regexp.MustCompile(`^P(?:(\d{1,8})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,8}(?:\.\d+)?)S)?)?$`)

// forever is the number of days from which a duration counts as unlimited.
const forever = 36500

// parseDuration parses an ISO 8601 duration; 0 for an empty or unlimited one.
func parseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	m := duration.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a duration such as PT1M", text)
	}
	var seconds float64
	for i, unit := range []float64{86400, 3600, 60, 1} {
		if m[i+1] != "" {
			n, err := strconv.ParseFloat(m[i+1], 64)
			if err != nil {
				return 0, fmt.Errorf("%q is not a duration: %w", text, err)
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
