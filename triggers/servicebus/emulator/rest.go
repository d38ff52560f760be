package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/drover-run/drover/triggers/servicebus/emulator/codec"
)

// brokerProperties is the header with the properties of a message that is sent over HTTP.
type brokerProperties struct {
	MessageID               string  `json:"MessageId"`
	CorrelationID           string  `json:"CorrelationId"`
	SessionID               string  `json:"SessionId"`
	Label, ReplyTo, To      string  // Label is the subject
	ReplyToSessionID        string  `json:"ReplyToSessionId"`
	PartitionKey            string  `json:"PartitionKey"`
	ScheduledEnqueueTimeUTC string  `json:"ScheduledEnqueueTimeUtc"` // in RFC 1123
	TimeToLive              float64 // in seconds
}

// restSend serves POST ENTITY/messages, for senders without AMQP. The other operations of that API are
// not implemented.
func (a *adminAPI) restSend(w http.ResponseWriter, r *http.Request, path string) {
	m, err := restMessage(r)
	if err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	if m.Data[0], err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery)); err != nil {
		adminError(w, http.StatusRequestEntityTooLarge, err)
		return
	}
	data, err := m.MarshalBinary()
	var decoded *codec.Message
	if err == nil {
		decoded, err = codec.DecodeMessage(data)
	}
	if err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	cond := decoded.CheckProperties()
	if cond == nil {
		a.host.namespace.Lock()
		_, cond = a.host.namespace.Send(path, decoded)
		a.host.namespace.Unlock()
	}
	switch {
	case cond == nil:
		w.WriteHeader(http.StatusCreated)
	case cond.Name == codec.CondNotFound:
		adminError(w, http.StatusNotFound, errors.New(cond.Text))
	default:
		adminError(w, http.StatusBadRequest, errors.New(cond.Text))
	}
}

// restMessage returns the message of a request, without its body.
func restMessage(r *http.Request) (*amqp.Message, error) {
	var p brokerProperties
	if text := r.Header.Get("BrokerProperties"); text != "" {
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, fmt.Errorf("BrokerProperties is no JSON object: %w", err)
		}
	}
	m := amqp.NewMessage(nil)
	m.Properties = &amqp.MessageProperties{
		ContentType: pointer(r.Header.Get("Content-Type")), GroupID: pointer(p.SessionID), ReplyToGroupID: pointer(p.ReplyToSessionID),
		Subject: pointer(p.Label), ReplyTo: pointer(p.ReplyTo), To: pointer(p.To),
	}
	if p.MessageID != "" {
		m.Properties.MessageID = p.MessageID
	}
	if p.CorrelationID != "" {
		m.Properties.CorrelationID = p.CorrelationID
	}
	if p.TimeToLive > 0 {
		m.Header = &amqp.MessageHeader{TTL: time.Duration(p.TimeToLive * float64(time.Second))}
	}
	m.Annotations = make(amqp.Annotations)
	if p.PartitionKey != "" {
		m.Annotations["x-opt-partition-key"] = p.PartitionKey
	}
	if p.ScheduledEnqueueTimeUTC != "" {
		at, err := http.ParseTime(p.ScheduledEnqueueTimeUTC)
		if err != nil {
			return nil, fmt.Errorf("ScheduledEnqueueTimeUtc is %q; write it as %s", p.ScheduledEnqueueTimeUTC, http.TimeFormat)
		}
		m.Annotations["x-opt-scheduled-enqueue-time"] = at
	}
	return m, nil
}

func pointer(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// isRestSend reports whether a request sends a message, and returns the entity.
func isRestSend(r *http.Request, path string) (entity string, is bool) {
	entity, is = strings.CutSuffix(path, "/messages")
	return entity, is && r.Method == http.MethodPost
}
