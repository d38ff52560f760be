package functionapp

import (
	"encoding/json"
	"fmt"

	"github.com/drover-run/drover/configs"
)

// This file passes a translation to the instances of a daemon, so that all of them run the same app
// even if its files change, and none of them indexes it.

// snapshot is all that a translation is made from, but the environment. It has secrets.
type snapshot struct {
	Name      string            `json:"name"`
	Dir       string            `json:"dir"`
	Script    string            `json:"script"`
	Values    map[string]string `json:"values"`
	Host      [][3]string       `json:"host"` // name, text and place of each setting
	Functions []snapshotV1      `json:"functions"`
	Index     Index             `json:"index"`
	// File and Text are the drover.yaml beside host.json; Text is nil if there is none.
	File string  `json:"file"`
	Text *string `json:"text"`
	// Shared reports whether other machines run the app, too.
	Shared bool `json:"shared"`
}

// snapshotV1 is a function of model v1.
type snapshotV1 struct {
	Described
	Retry    json.RawMessage `json:"retry,omitempty"`
	Disabled string          `json:"disabled,omitempty"`
	Lines    []int           `json:"lines,omitempty"`
}

// saveSnapshot sets the snapshot in the configuration.
func saveSnapshot(t *Translation, file string, text []byte) error {
	s := snapshot{Name: t.app.Name, Dir: t.app.Dir, Script: t.app.Script, Values: t.app.Settings.values, Index: t.index, File: file, Shared: t.app.shared}
	if text != nil {
		whole := string(text)
		s.Text = &whole
	}
	for _, one := range t.app.host.settings {
		s.Host = append(s.Host, [3]string{one.name, one.text, one.from})
	}
	for _, one := range t.app.described {
		s.Functions = append(s.Functions, snapshotV1{one, one.retry, one.disabled, one.lines})
	}
	var err error
	if t.Config.FunctionApp, err = json.Marshal(s); err != nil {
		return fmt.Errorf("passing on the function app %s: %w", t.app.Name, err)
	}
	return nil
}

// Restore returns the completed configuration that FunctionApp of another configuration describes.
// The error is a configs.Errors if it is wrong in this environment.
func Restore(saved []byte, env configs.Env) (*configs.Config, error) {
	var s snapshot
	if err := json.Unmarshal(saved, &s); err != nil {
		return nil, fmt.Errorf("reading the function app: %w", err)
	}
	a := &App{Name: s.Name, Dir: s.Dir, Script: s.Script, Settings: Settings{env: env, values: s.Values}, shared: s.Shared}
	for _, one := range s.Host {
		a.host.settings = append(a.host.settings, setting{name: one[0], text: one[1], from: one[2]})
	}
	for _, one := range s.Functions {
		one.retry, one.disabled, one.lines = one.Retry, one.Disabled, one.Lines
		a.described = append(a.described, one.Described)
	}
	var text []byte
	if s.Text != nil {
		text = []byte(*s.Text)
	}
	t := a.Translate(s.Index)
	return t.Config, t.Complete(s.File, text)
}
