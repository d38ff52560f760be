package emulator

import (
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers/servicebus/emulator/broker"
	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// Requests to $cbs, which accepts tokens, and to an entity's $management. The namespace is locked.

// answer is the response to a request.
func answer(code int32, description string, value any) *amqp.Message {
	return &amqp.Message{
		// Both spellings are in use; clients look for one of them.
		ApplicationProperties: map[string]any{"statusCode": code, "status-code": code, "statusDescription": description},
		Value:                 value,
	}
}

func problem(code int32, cond *codec.Condition) *amqp.Message {
	m := answer(code, cond.Text, nil)
	m.ApplicationProperties["errorCondition"] = amqp.Symbol(cond.Name)
	m.ApplicationProperties["error-condition"] = amqp.Symbol(cond.Name)
	return m
}

// get returns an argument of a request.
func get[T any](m *amqp.Message, name string) (out T, ok bool) {
	arguments, _ := m.Value.(map[string]any)
	out, ok = arguments[name].(T)
	return out, ok
}

// manageQueue answers a request to a queue's $management.
func (c *conn) manageQueue(q *broker.Queue, m *amqp.Message) *amqp.Message {
	operation, _ := m.ApplicationProperties["operation"].(string)
	name, known := strings.CutPrefix(operation, "com.microsoft:")
	if !known {
		return problem(501, codec.Failure(codec.CondNotImpl, "The operation '%s' is not implemented.", operation))
	}
	needs := claimListen
	if strings.HasSuffix(name, "schedule-message") || name == "cancel-scheduled-message" {
		needs = claimSend
	}
	if !c.allows(c.rights, q.Path, needs) {
		return problem(401, codec.Failure(codec.CondUnauthorized, "Unauthorized access. '%s' claim(s) are required to perform this operation.", needs))
	}
	switch name {
	case "renew-lock":
		return renewLocks(q, m)
	case "update-disposition":
		return updateDisposition(q, m)
	case "peek-message":
		return peek(q, m, c.MaxMessageSize)
	case "receive-by-sequence-number":
		return receiveDeferred(q, m)
	case "schedule-message":
		return c.schedule(q.Path, m)
	case "cancel-scheduled-message":
		return cancelScheduled(q.CancelScheduled, m)
	case "renew-session-lock", "get-session-state", "set-session-state":
		return c.manageSession(q, name, m)
	case "get-message-sessions":
		return listSessions(q, m)
	}
	return problem(501, codec.Failure(codec.CondNotImpl, "The operation '%s' is not implemented.", operation))
}

// manageTopic answers a request to a topic's $management: only senders send any.
func (c *conn) manageTopic(path string, m *amqp.Message) *amqp.Message {
	t := c.namespace.Topic(path)
	operation, _ := m.ApplicationProperties["operation"].(string)
	switch {
	case t == nil:
		return problem(404, codec.Failure(codec.CondNotFound, "The messaging entity '%s' could not be found.", path))
	case !c.allows(c.rights, path, claimSend):
		return problem(401, codec.Failure(codec.CondUnauthorized, "Unauthorized access. 'Send' claim(s) are required to perform this operation."))
	case operation == "com.microsoft:schedule-message":
		return c.schedule(path, m)
	case operation == "com.microsoft:cancel-scheduled-message":
		return cancelScheduled(t.CancelScheduled, m)
	}
	return problem(501, codec.Failure(codec.CondNotImpl, "The operation is not implemented for topics."))
}

// lockTokens returns the locks that a request names.
func lockTokens(m *amqp.Message) (out []codec.UUID) {
	tokens, _ := get[[]amqp.UUID](m, "lock-tokens")
	for _, token := range tokens {
		out = append(out, codec.UUID(token))
	}
	return out
}

func renewLocks(q *broker.Queue, m *amqp.Message) *amqp.Message {
	until, cond := q.RenewLocks(lockTokens(m))
	if cond != nil {
		return problem(410, cond)
	}
	return answer(200, "OK", map[string]any{"expirations": until})
}

func updateDisposition(q *broker.Queue, m *amqp.Message) *amqp.Message {
	var v broker.Verdict
	v.Kind, _ = get[string](m, "disposition-status")
	switch v.Kind {
	case broker.Completed, broker.Abandoned, broker.DeadLettered, broker.Deferred:
	default:
		return problem(400, codec.Failure(codec.CondArgument, "The disposition-status '%s' is unknown.", v.Kind))
	}
	v.Reason, _ = get[string](m, "deadletter-reason")
	v.Description, _ = get[string](m, "deadletter-description")
	modify, _ := get[map[string]any](m, "properties-to-modify")
	v.Properties = settable(modify)
	for _, token := range lockTokens(m) {
		switch cond := q.Settle(token, v); cond {
		case nil:
		case broker.ErrLost:
			return problem(410, cond)
		default:
			return problem(400, cond)
		}
	}
	return answer(200, "OK", nil)
}

// settable are the properties that a message can get, in the emulator's own types.
func settable(properties map[string]any) map[string]any {
	out := make(map[string]any, len(properties))
	for name, value := range properties {
		switch v := value.(type) {
		case amqp.UUID:
			out[name] = codec.UUID(v)
		case amqp.Symbol:
			out[name] = codec.Symbol(v)
		case nil, bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float32, float64, string, []byte, time.Time:
			out[name] = v
		}
	}
	return out
}

// peek returns messages, together no larger than one message may be, or a single larger one.
func peek(q *broker.Queue, m *amqp.Message, maxSize uint64) *amqp.Message {
	from, _ := get[int64](m, "from-sequence-number")
	count, _ := get[int32](m, "message-count")
	var only *string
	if session, has := get[string](m, "session-id"); has {
		only = &session
	}
	var found []any
	for _, data := range q.Peek(from, int(count), only, maxSize) {
		found = append(found, map[string]any{"message": data})
	}
	if len(found) == 0 {
		return answer(204, "No messages", nil)
	}
	return answer(200, "OK", map[string]any{"messages": found})
}

func receiveDeferred(q *broker.Queue, m *amqp.Message) *amqp.Message {
	numbers, _ := get[[]int64](m, "sequence-numbers")
	mode, _ := get[uint32](m, "receiver-settle-mode")
	found, cond := q.ReceiveDeferred(numbers, mode == 1)
	if cond != nil {
		return problem(404, cond)
	}
	var out []any
	for _, x := range found {
		out = append(out, map[string]any{"message": x.Data, "lock-token": amqp.UUID(x.Token)})
	}
	return answer(200, "OK", map[string]any{"messages": out})
}

// schedule accepts messages, each with an annotation for its due time.
func (c *conn) schedule(path string, m *amqp.Message) *amqp.Message {
	list, _ := get[[]any](m, "messages")
	var numbers []int64
	for _, item := range list {
		fields, _ := item.(map[string]any)
		data, _ := fields["message"].([]byte)
		one, err := codec.DecodeMessage(data)
		if err != nil {
			return problem(400, codec.Failure(codec.CondDecode, "%v", err))
		}
		if cond := one.CheckProperties(); cond != nil {
			return problem(400, cond)
		}
		n, cond := c.namespace.Send(path, one)
		if cond != nil {
			return problem(400, cond)
		}
		numbers = append(numbers, n)
	}
	return answer(200, "OK", map[string]any{"sequence-numbers": numbers})
}

// cancelScheduled removes scheduled messages: all that the request names, or none.
func cancelScheduled(cancel func([]int64) *codec.Condition, m *amqp.Message) *amqp.Message {
	numbers, _ := get[[]int64](m, "sequence-numbers")
	if cond := cancel(numbers); cond != nil {
		return problem(404, cond)
	}
	return answer(200, "OK", nil)
}

// manageSession answers a request about a session that a receiver of the connection holds.
func (c *conn) manageSession(q *broker.Queue, name string, m *amqp.Message) *amqp.Message {
	id, _ := get[string](m, "session-id")
	s := q.HeldSession(id, func(by broker.Link) bool { return by.(*link).s.c == c })
	if s == nil {
		return problem(410, codec.Failure(codec.CondSessionLost, "The session lock has expired on the MessageSession. Accept a new MessageSession."))
	}
	switch name {
	case "renew-session-lock":
		return answer(200, "OK", map[string]any{"expiration": s.RenewLock()})
	case "set-session-state":
		state, _ := get[[]byte](m, "session-state")
		s.SetState(state)
		return answer(200, "OK", nil)
	}
	var state any
	if now := s.State(); now != nil {
		state = now
	}
	return answer(200, "OK", map[string]any{"session-state": state})
}

func listSessions(q *broker.Queue, m *amqp.Message) *amqp.Message {
	since, _ := get[time.Time](m, "last-updated-time")
	skip, _ := get[int32](m, "skip")
	top, _ := get[int32](m, "top")
	ids := q.ListSessions(since)
	ids = ids[min(max(int(skip), 0), len(ids)):]
	ids = ids[:min(max(int(top), 0), len(ids))]
	if len(ids) == 0 {
		return answer(204, "No sessions", nil)
	}
	return answer(200, "OK", map[string]any{"skip": skip + int32(len(ids)), "sessions-ids": ids})
}

// putToken answers a request to $cbs.
func (c *conn) putToken(m *amqp.Message) *amqp.Message {
	audience, _ := m.ApplicationProperties["name"].(string)
	_, rest, _ := strings.Cut(audience, "://")
	_, path, _ := strings.Cut(rest, "/")
	entity := strings.TrimSuffix(strings.Trim(path, "/"), "/$management")
	if entity != "" && c.namespace.Topic(entity) == nil {
		if _, cond := c.namespace.Queue(entity); cond != nil {
			return problem(404, cond)
		}
	}
	token, _ := m.Value.(string)
	if len(c.Keys) > 0 {
		k, err := checkSAS(token, c.Keys, c.Now())
		if err != nil {
			return problem(401, codec.Failure(codec.CondUnauthorized, "%v", err))
		}
		c.rights[strings.ToLower(entity)] = k
	}
	return answer(202, "Accepted", nil)
}
