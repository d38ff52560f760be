package emulator

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

// Requests: to $cbs, which takes tokens, and to an entity's $management.

// answer is the response to a request.
func answer(code int32, description string, value any) *amqp.Message {
	return &amqp.Message{
		// Both spellings are in use; the clients look for either.
		ApplicationProperties: map[string]any{"statusCode": code, "status-code": code, "statusDescription": description},
		Value:                 value,
	}
}

func problem(code int32, cond *condition) *amqp.Message {
	m := answer(code, cond.text, nil)
	m.ApplicationProperties["errorCondition"] = amqp.Symbol(cond.name)
	m.ApplicationProperties["error-condition"] = amqp.Symbol(cond.name)
	return m
}

// get reads a request's argument.
func get[T any](m *amqp.Message, name string) (out T, ok bool) {
	arguments, _ := m.Value.(map[string]any)
	out, ok = arguments[name].(T)
	return out, ok
}

var errNoMessage = failure(condNoMessage, "The message could not be found.")

// manage answers a request to a queue's $management; e.mu is locked.
func (c *conn) manage(q *queue, m *amqp.Message) *amqp.Message {
	operation, _ := m.ApplicationProperties["operation"].(string)
	name, known := strings.CutPrefix(operation, "com.microsoft:")
	if !known {
		return problem(501, failure(condNotImpl, "The operation '%s' is not implemented.", operation))
	}
	needs := claimListen
	if strings.HasSuffix(name, "schedule-message") || name == "cancel-scheduled-message" {
		needs = claimSend
	}
	if !c.rights.may(c.e, q.path, needs) {
		return problem(401, failure(condUnauthorized, "Unauthorized access. '%s' claim(s) are required to perform this operation.", needs))
	}
	switch name {
	case "renew-lock":
		return q.renewLocks(m)
	case "update-disposition":
		return q.updateDisposition(m)
	case "peek-message":
		return q.peek(m)
	case "receive-by-sequence-number":
		return q.receiveDeferred(m)
	case "schedule-message":
		return c.e.schedule(q.path, m)
	case "cancel-scheduled-message":
		return cancel(q.scheduled, m)
	case "renew-session-lock", "get-session-state", "set-session-state":
		return q.manageSession(c, name, m)
	case "get-message-sessions":
		return q.listSessions(m)
	}
	return problem(501, failure(condNotImpl, "The operation '%s' is not implemented.", operation))
}

// manageTopic answers a request to a topic's $management: only senders have any.
func (c *conn) manageTopic(path string, m *amqp.Message) *amqp.Message {
	t := c.e.topics[strings.ToLower(path)]
	operation, _ := m.ApplicationProperties["operation"].(string)
	switch {
	case t == nil:
		return problem(404, failure(condNotFound, "The messaging entity '%s' could not be found.", path))
	case !c.rights.may(c.e, path, claimSend):
		return problem(401, failure(condUnauthorized, "Unauthorized access. 'Send' claim(s) are required to perform this operation."))
	case operation == "com.microsoft:schedule-message":
		return c.e.schedule(path, m)
	case operation == "com.microsoft:cancel-scheduled-message":
		return cancel(t.scheduled, m)
	}
	return problem(501, failure(condNotImpl, "The operation is not implemented for topics."))
}

func (q *queue) renewLocks(m *amqp.Message) *amqp.Message {
	tokens, _ := get[[]amqp.UUID](m, "lock-tokens")
	var until []time.Time
	for _, token := range tokens {
		x := q.locked[uuid(token)]
		if x == nil {
			return problem(410, errLost)
		}
		until = append(until, q.renew(x))
	}
	return answer(200, "OK", map[string]any{"expirations": until})
}

func (q *queue) updateDisposition(m *amqp.Message) *amqp.Message {
	tokens, _ := get[[]amqp.UUID](m, "lock-tokens")
	status, _ := get[string](m, "disposition-status")
	v := verdict{kind: status}
	switch status {
	case completed, abandoned, deadLettered, deferred:
	default:
		return problem(400, failure(condArgument, "The disposition-status '%s' is unknown.", status))
	}
	v.reason, _ = get[string](m, "deadletter-reason")
	v.description, _ = get[string](m, "deadletter-description")
	modify, _ := get[map[string]any](m, "properties-to-modify")
	v.properties = settable(modify)
	for _, token := range tokens {
		switch cond := q.settle(uuid(token), v); cond {
		case nil:
		case errLost:
			return problem(410, cond)
		default:
			return problem(400, cond)
		}
	}
	return answer(200, "OK", nil)
}

// settable are the properties that a message can get, as the emulator's own types.
func settable(properties map[string]any) map[string]any {
	out := make(map[string]any, len(properties))
	for name, value := range properties {
		switch v := value.(type) {
		case amqp.UUID:
			out[name] = uuid(v)
		case amqp.Symbol:
			out[name] = symbol(v)
		case nil, bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float32, float64, string, []byte, time.Time:
			out[name] = v
		}
	}
	return out
}

// all is every message of the queue in the order of their numbers.
func (q *queue) all() []*entry {
	var out []*entry
	for _, l := range q.lines {
		out = append(out, l.entries...)
	}
	for _, x := range q.locked {
		out = append(out, x)
	}
	for _, m := range []map[int64]*entry{q.scheduled, q.deferred} {
		for _, x := range m {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int { return int(a.sequence - b.sequence) })
	return out
}

// maxPeek bounds the messages of one peek. They are also at most as large together
// as one message may be, unless the first is alone.
const maxPeek = 250

func (q *queue) peek(m *amqp.Message) *amqp.Message {
	from, _ := get[int64](m, "from-sequence-number")
	count, _ := get[int32](m, "message-count")
	session, hasSession := get[string](m, "session-id")
	var found []any
	size := uint64(0)
	for _, x := range q.all() {
		if x.sequence < from || hasSession && x.session != session {
			continue
		}
		data := x.encode()
		if size += uint64(len(data)); len(found) > 0 && size > q.e.options.MaxMessageSize || len(found) >= int(min(count, maxPeek)) {
			break
		}
		found = append(found, map[string]any{"message": data})
	}
	if len(found) == 0 {
		return answer(204, "No messages", nil)
	}
	return answer(200, "OK", map[string]any{"messages": found})
}

func (q *queue) receiveDeferred(m *amqp.Message) *amqp.Message {
	numbers, _ := get[[]int64](m, "sequence-numbers")
	mode, _ := get[uint32](m, "receiver-settle-mode")
	var found []*entry
	for _, n := range numbers {
		x := q.deferred[n]
		if x == nil {
			return problem(404, errNoMessage)
		}
		found = append(found, x)
	}
	var out []any
	for _, x := range found {
		delete(q.deferred, x.sequence)
		if mode == 1 {
			q.lock(x, nil)
		}
		out = append(out, map[string]any{"message": x.encode(), "lock-token": amqp.UUID(x.token)})
	}
	return answer(200, "OK", map[string]any{"messages": out})
}

// schedule takes messages whose annotation says when they are due.
func (e *Emulator) schedule(path string, m *amqp.Message) *amqp.Message {
	list, _ := get[[]any](m, "messages")
	var numbers []int64
	for _, item := range list {
		fields, _ := item.(map[string]any)
		data, _ := fields["message"].([]byte)
		one, err := decodeMessage(data)
		if err != nil {
			return problem(400, failure(condDecode, "%v", err))
		}
		if cond := one.tooManyProperties(); cond != nil {
			return problem(400, cond)
		}
		n, cond := int64(0), (*condition)(nil)
		if t := e.topics[strings.ToLower(path)]; t != nil {
			n, cond = e.publish(t, one)
		} else if q, missing := e.find(path); missing != nil {
			cond = missing
		} else {
			n, cond = q.put(one)
		}
		if cond != nil {
			return problem(400, cond)
		}
		numbers = append(numbers, n)
	}
	return answer(200, "OK", map[string]any{"sequence-numbers": numbers})
}

// cancel removes scheduled messages: all that the request names, or none.
func cancel[T any](scheduled map[int64]T, m *amqp.Message) *amqp.Message {
	numbers, _ := get[[]int64](m, "sequence-numbers")
	for _, n := range numbers {
		if _, found := scheduled[n]; !found {
			return problem(404, errNoMessage)
		}
	}
	for _, n := range numbers {
		delete(scheduled, n)
	}
	return answer(200, "OK", nil)
}

func (q *queue) manageSession(c *conn, name string, m *amqp.Message) *amqp.Message {
	id, _ := get[string](m, "session-id")
	l := q.lines[id]
	if l == nil || l.owner == nil || l.owner.s.c != c {
		return problem(410, failure(condSessionLost, "The session lock has expired on the MessageSession. Accept a new MessageSession."))
	}
	switch name {
	case "renew-session-lock":
		l.until = q.e.now().Add(q.options.LockDuration)
		return answer(200, "OK", map[string]any{"expiration": l.until})
	case "set-session-state":
		if l.state, _ = get[[]byte](m, "session-state"); len(l.state) == 0 {
			l.state = nil
		}
		l.touched = q.e.now()
		return answer(200, "OK", nil)
	}
	var state any
	if l.state != nil {
		state = l.state
	}
	return answer(200, "OK", map[string]any{"session-state": state})
}

func (q *queue) listSessions(m *amqp.Message) *amqp.Message {
	since, _ := get[time.Time](m, "last-updated-time")
	skip, _ := get[int32](m, "skip")
	top, _ := get[int32](m, "top")
	var ids []string
	for id, l := range q.lines {
		if since.Year() >= 9999 && (len(l.entries) > 0 || l.state != nil) || l.state != nil && l.touched.After(since) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = ids[min(max(int(skip), 0), len(ids)):]
	ids = ids[:min(max(int(top), 0), len(ids))]
	if len(ids) == 0 {
		return answer(204, "No sessions", nil)
	}
	return answer(200, "OK", map[string]any{"skip": skip + int32(len(ids)), "sessions-ids": ids})
}

// claim is a right, by the service's own name.
type claim string

const (
	claimListen claim = "Listen"
	claimSend   claim = "Send"
	claimManage claim = "Manage"
)

// rights are what a connection's tokens allow, by entity.
type rights struct{ granted map[string]*Key }

func newRights() rights { return rights{make(map[string]*Key)} }

func (k *Key) may(what claim) bool {
	return k.Manage || what == claimListen && k.Listen || what == claimSend && k.Send
}

// may reports whether something may be done with an entity.
func (r rights) may(e *Emulator, path string, what claim) bool {
	if len(e.options.Keys) == 0 {
		return true
	}
	name := strings.ToLower(strings.TrimSuffix(path, "/$management"))
	for {
		if k := r.granted[name]; k != nil {
			return k.may(what)
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			k := r.granted[""]
			return k != nil && k.may(what)
		}
		name = name[:i]
	}
}

// putToken answers a request to $cbs; e.mu is locked.
func (c *conn) putToken(m *amqp.Message) *amqp.Message {
	audience, _ := m.ApplicationProperties["name"].(string)
	_, rest, _ := strings.Cut(audience, "://")
	_, path, _ := strings.Cut(rest, "/")
	entity := strings.TrimSuffix(strings.Trim(path, "/"), "/$management")
	if entity != "" && c.e.topics[strings.ToLower(entity)] == nil {
		if _, cond := c.e.find(entity); cond != nil {
			return problem(404, cond)
		}
	}
	token, _ := m.Value.(string)
	if len(c.e.options.Keys) > 0 {
		k, err := checkSAS(token, c.e.options.Keys, c.e.now())
		if err != nil {
			return problem(401, &condition{condUnauthorized, err.Error()})
		}
		c.rights.granted[strings.ToLower(entity)] = k
	}
	return answer(202, "Accepted", nil)
}

var (
	errToken   = errors.New("InvalidSignature: The token has an invalid signature")
	errExpired = errors.New("ExpiredToken: The token is expired")
)
