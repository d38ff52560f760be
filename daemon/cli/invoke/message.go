package invoke

import (
	"crypto/rand"
	"io"
	"maps"
	"time"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/pairs"
	"github.com/drover-run/drover/daemon/cli/send"
	"github.com/drover-run/drover/daemon/internal/sources"
	"github.com/drover-run/drover/triggers"
)

// MessageFlags has the flags that describe a message.
type MessageFlags struct {
	File     string      `name:"file" placeholder:"FILE" help:"Use this whole file as the body; - is standard input."`
	Body     *string     `placeholder:"TEXT" help:"Use this text as the body."`
	Header   pairs.Pairs `short:"H" placeholder:"NAME=VALUE" help:"Set a header, as NAME=VALUE or NAME:VALUE. May be repeated."`
	Property pairs.Pairs `short:"P" placeholder:"NAME=VALUE" help:"Set a property, such as content_type=application/json. May be repeated."`
	Attempt  int         `default:"1" help:"Run as this attempt. If the last allowed attempt fails, the verdict is a rejection."`
	Subject  string      `help:"Set the subject or queue that the message was sent to (default: the trigger's, if it has exactly one)."`
	Session  string      `help:"Set the session or the ordering key."`
}

// Check returns an exit.UsageError if flags contradict each other.
func (c *MessageFlags) Check() error {
	if c.Body != nil && c.File != "" {
		return exit.UsageError("give either --body or --file, not both; --file - is standard input")
	}
	if c.Attempt < 1 {
		return exit.UsageError("--attempt counts from 1")
	}
	return nil
}

// NewMessage returns the message for a function with these settings. in is standard input. The error may be
// an exit.UsageError.
func (c *MessageFlags) NewMessage(settings configs.Function, in io.Reader) (*triggers.Message, error) {
	m := &triggers.Message{
		ID: "invoke-" + rand.Text()[:10], Attributes: c.Header, Attempt: c.Attempt,
		Enqueued: time.Now(), OrderingKey: c.Session, Subject: c.Subject,
	}
	traits := sources.TraitsOf(settings.Trigger)
	if properties := maps.Clone(traits.SampleProperties); len(properties)+len(c.Property) > 0 {
		if properties == nil {
			properties = make(triggers.Properties)
		}
		maps.Copy(properties, c.Property)
		m.Origin = triggers.Known(properties)
	}
	if m.Subject == "" {
		m.Subject = traits.Target.Address
	}
	if traits.SessionState {
		m.Session = new(Session)
	}
	switch {
	case c.Body != nil:
		m.Body = []byte(*c.Body)
		return m, nil
	case c.File == "" && traits.SampleBody != nil:
		m.Body = traits.SampleBody
		return m, nil
	case c.File == "":
		return nil, exit.UsageError("give --body or --file; --file - is standard input")
	}
	var err error
	m.Body, err = send.ReadBody(c.File, in, max(int64(settings.MaxBody), send.MaxBody))
	return m, err
}
