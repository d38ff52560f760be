package suggest

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// commands is a small command line.
type commands struct {
	Run  struct{} `cmd:""`
	Send struct {
		Target string `arg:""`
	} `cmd:""`
	Status struct{} `cmd:""`
	Hidden struct{} `cmd:"" hidden:""`
	Dead   struct {
		List   struct{} `cmd:""`
		Replay struct{} `cmd:""`
	} `cmd:""`
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(new(commands))
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"start":          "there is no command start; did you mean drover run?",
		"strat":          "there is no command strat; did you mean drover run?",
		"rnu":            "there is no command rnu; did you mean drover run?",
		"serve -c x":     "there is no command serve; did you mean drover run?",
		"snd orders":     "there is no command snd; did you mean drover send?",
		"ps":             "there is no command ps; did you mean drover status?",
		"dlq":            "there is no command dlq; did you mean drover dead list?",
		"replay orders":  "there is no command replay; did you mean drover dead replay?",
		"dead lst":       "there is no command dead lst; did you mean drover dead list?",
		"dead fly":       "there is no command dead fly; drover dead has: list, replay",
		"validate":       "there is no command validate", // this command line has no check
		"stop":           "there is no command stop: a daemon stops at SIGTERM, or at Ctrl-C in its terminal",
		"elephant":       "there is no command elephant",
		"x":              "there is no command x",
		"hiden":          "there is no command hiden",
		"run":            "",
		"run what":       "",
		"send a b":       "",
		"dead list":      "",
		"--flag strat":   "there is no command strat; did you mean drover run?",
		"run --such fly": "",
		"":               "",
	} {
		if got := Unknown(parser.Model.Node, strings.Fields(args)); got != want {
			t.Errorf("%s: %q; want %q", args, got, want)
		}
	}
}
