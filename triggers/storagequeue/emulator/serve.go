package emulator

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The service's limits.
const (
	maxText    = 64 << 10
	maxRequest = 512 << 10 // the characters of a text may be written as references
	maxGet     = 32
	week       = 7 * 24 * time.Hour
	// defaultLease is how long a get or an update hides a message by default.
	defaultLease = 30 * time.Second
)

// call is one request.
type call struct {
	e     *Emulator
	r     *http.Request
	op    Operation
	queue string
	id    string // of a message
	query map[string]string

	status int
	header http.Header
	body   bytes.Buffer
}

// parse parses a request. The path is /ACCOUNT, /ACCOUNT/QUEUE, /ACCOUNT/QUEUE/messages, or
// /ACCOUNT/QUEUE/messages/ID.
func (e *Emulator) parse(r *http.Request, header http.Header) *call {
	c := &call{e: e, r: r, op: unknown, query: make(map[string]string), header: header}
	for name, values := range r.URL.Query() {
		c.query[strings.ToLower(name)] = values[0]
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(path) > 1 {
		c.queue = path[1]
	}
	if len(path) > 3 {
		c.id = path[3]
	}
	comp := c.query["comp"]
	switch {
	case len(path) == 1 && comp == "list" && r.Method == http.MethodGet:
		c.op = ListQueues
	case len(path) == 2 && comp == "":
		c.op = byMethod(r.Method, map[string]Operation{http.MethodPut: CreateQueue, http.MethodDelete: DeleteQueue})
	case len(path) == 2 && comp == "metadata":
		c.op = byMethod(r.Method, map[string]Operation{http.MethodGet: GetQueue, http.MethodHead: GetQueue, http.MethodPut: SetQueue})
	case len(path) == 3 && path[2] == "messages":
		c.op = byMethod(r.Method, map[string]Operation{http.MethodPost: Put, http.MethodGet: Get, http.MethodDelete: Clear})
		if c.op == Get && c.query["peekonly"] == "true" {
			c.op = Peek
		}
	case len(path) == 4 && path[2] == "messages":
		c.op = byMethod(r.Method, map[string]Operation{http.MethodPut: Update, http.MethodDelete: Delete})
	}
	return c
}

func byMethod(method string, ops map[string]Operation) Operation {
	if op, found := ops[method]; found {
		return op
	}
	return unknown
}

// ServeHTTP implements http.Handler.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := e.parse(r, w.Header())
	e.usage[c.op].Add(1)
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	fault := e.match(c.op, c.queue)
	if fault != nil {
		if fault.Delay > 0 {
			select {
			case <-time.After(fault.Delay):
			case <-r.Context().Done():
			}
		}
		if fault.Cut {
			panic(http.ErrAbortHandler)
		}
		if fault.Status != 0 {
			if fault.RetryAfter != "" {
				w.Header().Set("Retry-After", fault.RetryAfter)
			}
			c.fail(&failure{fault.Status, fault.Code, "A fault was asked for."})
			c.answer(w)
			return
		}
	}
	bad := e.refused(r)
	if bad == nil {
		bad = c.do()
	}
	if bad != nil {
		c.fail(bad)
	}
	if fault != nil && fault.LoseAnswer {
		panic(http.ErrAbortHandler)
	}
	c.answer(w)
}

func (c *call) fail(f *failure) {
	c.status = f.status
	c.header.Set("x-ms-error-code", f.code)
	c.body.Reset()
	c.body.WriteString(xml.Header + "<Error><Code>" + f.code + "</Code><Message>" + xmlText(f.message) + "</Message></Error>")
}

func (c *call) answer(w http.ResponseWriter) {
	now := c.e.now()
	c.header.Set("x-ms-request-id", newID())
	c.header.Set("Date", now.UTC().Format(http.TimeFormat))
	c.header.Set("Server", "drover-storage-queue-emulator")
	if version := c.r.Header.Get("x-ms-version"); version != "" {
		c.header.Set("x-ms-version", version)
	}
	if c.body.Len() > 0 {
		c.header.Set("Content-Type", "application/xml")
		c.header.Set("Content-Length", strconv.Itoa(c.body.Len()))
	}
	w.WriteHeader(c.status)
	if c.body.Len() > 0 && c.r.Method != http.MethodHead {
		_, _ = w.Write(c.body.Bytes()) //nolint:gosec // escaped XML; a client that is gone needs no answer
	}
}

// do carries out a request.
func (c *call) do() *failure {
	switch c.op {
	case unknown:
		if strings.Count(strings.Trim(c.r.URL.Path, "/"), "/") > 3 {
			return errURI
		}
		return errVerb
	case ListQueues:
		return c.list()
	}
	if bad := checkName(c.queue); bad != nil {
		return bad
	}
	var text *string
	if c.op == Put || c.op == Update {
		var bad *failure
		if text, bad = c.text(); bad != nil {
			return bad
		}
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	if c.op == CreateQueue {
		return c.create()
	}
	q := c.e.queues[c.queue]
	if q == nil {
		return errQueueNotFound
	}
	switch c.op {
	case DeleteQueue:
		delete(c.e.queues, c.queue)
	case GetQueue:
		c.properties(q)
		return nil
	case SetQueue:
		q.metadata = c.metadata()
	case Put:
		return c.handlePut(q, text)
	case Get, Peek:
		return c.handleGet(q)
	case Clear:
		q.clear()
	case Update:
		return c.handleUpdate(q, text)
	case Delete:
		m, bad := q.find(c.id, c.query["popreceipt"], c.e.now())
		if bad != nil {
			return bad
		}
		q.remove(m)
	}
	c.status = http.StatusNoContent
	return nil
}

// text returns the message in a request; nil if there is none.
func (c *call) text() (*string, *failure) {
	raw, err := io.ReadAll(c.r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, errTooLarge
	case err != nil:
		return nil, errXML
	case len(raw) == 0:
		return nil, nil
	}
	var in struct {
		XMLName xml.Name `xml:"QueueMessage"`
		Text    *string  `xml:"MessageText"`
	}
	if !bytes.Contains(raw, []byte("<![CDATA[")) { // a parser drops a bare carriage return; Azurite does not
		raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("&#xD;"))
	}
	if err := xml.Unmarshal(raw, &in); err != nil || in.Text == nil {
		return nil, errXML
	}
	if len(*in.Text) > maxText {
		return nil, errTooLarge
	}
	return in.Text, nil
}

// seconds returns a duration from the query, checked against its bounds.
func (c *call) seconds(name string, without, least, most time.Duration) (time.Duration, *failure) {
	text, given := c.query[name]
	if !given {
		return without, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, invalid(name)
	}
	d := time.Duration(n) * time.Second
	if d < least || d > most {
		return 0, outOfRange(name)
	}
	return d, nil
}

func (c *call) metadata() map[string]string {
	out := make(map[string]string)
	for name, values := range c.r.Header {
		if key, found := strings.CutPrefix(strings.ToLower(name), "x-ms-meta-"); found {
			out[key] = values[0]
		}
	}
	return out
}

func (c *call) create() *failure {
	meta := c.metadata()
	if q := c.e.queues[c.queue]; q != nil {
		if len(meta) != len(q.metadata) {
			return errQueueExists
		}
		for key, value := range meta {
			if have, found := q.metadata[key]; !found || have != value {
				return errQueueExists
			}
		}
		c.status = http.StatusNoContent
		return nil
	}
	c.e.queues[c.queue] = newQueue(c.queue, meta)
	c.status = http.StatusCreated
	return nil
}

func (c *call) properties(q *queue) {
	q.expire(c.e.now())
	c.header.Set("x-ms-approximate-messages-count", strconv.Itoa(len(q.order)))
	for key, value := range q.metadata {
		c.header["x-ms-meta-"+key] = []string{value} // Set would write the name with capitals, which the Python SDK keeps
	}
	c.status = http.StatusOK
}

func (c *call) handlePut(q *queue, text *string) *failure {
	if text == nil {
		return errXML
	}
	hidden, bad := c.seconds("visibilitytimeout", 0, 0, week)
	if bad != nil {
		return bad
	}
	ttl := week
	if given, found := c.query["messagettl"]; found {
		n, err := strconv.ParseInt(given, 10, 32)
		if err != nil || n < 1 && n != -1 {
			return invalid("messagettl")
		}
		ttl = max(time.Duration(n)*time.Second, 0)
	}
	if ttl > 0 && hidden >= ttl {
		return invalid("visibilitytimeout")
	}
	m := q.put(*text, c.e.now(), hidden, ttl)
	c.status = http.StatusCreated
	c.write([]*message{m}, true, false, false)
	return nil
}

func (c *call) handleGet(q *queue) *failure {
	n := 1
	if given, found := c.query["numofmessages"]; found {
		var err error
		if n, err = strconv.Atoi(given); err != nil {
			return invalid("numofmessages")
		}
		if n < 1 || n > maxGet {
			return outOfRange("numofmessages")
		}
	}
	c.status = http.StatusOK
	if c.op == Peek {
		c.write(q.visible(n, c.e.now()), false, true, true)
		return nil
	}
	lease, bad := c.seconds("visibilitytimeout", defaultLease, time.Second, week)
	if bad != nil {
		return bad
	}
	c.write(q.get(n, c.e.now(), lease), true, true, true)
	return nil
}

func (c *call) handleUpdate(q *queue, text *string) *failure {
	hidden, bad := c.seconds("visibilitytimeout", defaultLease, 0, week)
	if bad != nil {
		return bad
	}
	m, bad := q.find(c.id, c.query["popreceipt"], c.e.now())
	if bad != nil {
		return bad
	}
	q.update(m, c.e.now(), hidden, text)
	c.header.Set("x-ms-popreceipt", receiptText(m.receipt))
	c.header.Set("x-ms-time-next-visible", rfc1123(m.visible))
	c.status = http.StatusNoContent
	return nil
}

func rfc1123(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// write writes a list of messages.
func (c *call) write(ms []*message, receipts, count, text bool) {
	b := &c.body
	b.WriteString(xml.Header + "<QueueMessagesList>")
	for _, m := range ms {
		fmt.Fprintf(b, "<QueueMessage><MessageId>%s</MessageId><InsertionTime>%s</InsertionTime><ExpirationTime>%s</ExpirationTime>", m.id, rfc1123(m.inserted), rfc1123(m.expires))
		if receipts {
			fmt.Fprintf(b, "<PopReceipt>%s</PopReceipt><TimeNextVisible>%s</TimeNextVisible>", receiptText(m.receipt), rfc1123(m.visible))
		}
		if count {
			fmt.Fprintf(b, "<DequeueCount>%d</DequeueCount>", m.dequeued)
		}
		if text {
			b.WriteString("<MessageText>" + xmlText(m.text) + "</MessageText>")
		}
		b.WriteString("</QueueMessage>")
	}
	b.WriteString("</QueueMessagesList>")
}

// maxList bounds the queues in one response.
const maxList = 5000

func (c *call) list() *failure {
	prefix, marker := c.query["prefix"], c.query["marker"]
	most := maxList
	if given, found := c.query["maxresults"]; found {
		n, err := strconv.Atoi(given)
		if err != nil {
			return invalid("maxresults")
		}
		if n < 1 {
			return outOfRange("maxresults")
		}
		most = min(n, maxList)
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	var names []string
	for name := range c.e.queues {
		if strings.HasPrefix(name, prefix) && name >= marker {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	next := ""
	if len(names) > most {
		next, names = names[most], names[:most]
	}
	b := &c.body
	fmt.Fprintf(b, "%s<EnumerationResults ServiceEndpoint=\"http://%s/%s\"><Prefix>%s</Prefix><Marker>%s</Marker><MaxResults>%d</MaxResults><Queues>",
		xml.Header, xmlText(c.r.Host), Account, xmlText(prefix), xmlText(marker), most)
	for _, name := range names {
		b.WriteString("<Queue><Name>" + name + "</Name>")
		if strings.Contains(c.query["include"], "metadata") {
			b.WriteString("<Metadata>")
			for key, value := range c.e.queues[name].metadata {
				b.WriteString("<" + key + ">" + xmlText(value) + "</" + key + ">")
			}
			b.WriteString("</Metadata>")
		}
		b.WriteString("</Queue>")
	}
	b.WriteString("</Queues><NextMarker>" + next + "</NextMarker></EnumerationResults>")
	c.status = http.StatusOK
	return nil
}

// escapes replace the characters that cannot be text in XML. They avoid numeric references, because
// the JavaScript SDK does not decode them; only a carriage return has no other form.
var escapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;")

// xmlText converts a text to XML. It replaces characters that XML cannot represent.
func xmlText(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return utf8.RuneError
		}
		return r
	}, text)
	return escapes.Replace(text)
}
