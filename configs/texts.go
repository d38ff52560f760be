package configs

import "fmt"

// This file has readable texts of single parts of a configuration.

// String describes the source of the messages.
func (t Trigger) String() string {
	if s := t.kindSettings(); s != nil {
		return s.describeTrigger()
	}
	if t.Program {
		return "a trigger of the program"
	}
	return "none"
}

// String describes the destination, after the name that the output has, if any.
func (o Output) String() string {
	text := "none"
	if s := o.kindSettings(); s != nil {
		text = s.describeOutput()
	}
	if o.Name != "" {
		text = fmt.Sprintf("%s (%s)", o.Name, text)
	}
	return text
}

// String describes the server of the connection, and its authentication.
func (c Connection) String() string {
	switch {
	case c.Embedded():
		return c.describeServers()
	case c.Storage():
		return c.describeAccount()
	case c.Namespace != "" || c.ConnectionString != "":
		return c.describeNamespace()
	}
	return c.describeServers()
}
