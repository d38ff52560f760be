package deadletter

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/triggers"
)

// Choice has the flags that replay and purge have in common.
type Choice struct {
	IDs []string `arg:"" optional:"" name:"ids" help:"Select those with these IDs, from drover dead list, or with these message IDs, from the log."`
	Filter
	All    bool   `help:"Select all dead letters; required if no other filter is given."`
	Limit  int    `placeholder:"N" help:"Stop after N dead letters, oldest first."`
	Rate   string `placeholder:"N/s" help:"Limit the rate: 100/s, 30/m or 10/h."`
	DryRun bool   `help:"Print what would be done, without doing it."`
}

// Selection is a Choice whose flags were checked.
type Selection struct {
	function string
	limit    int // 0: none
	dryRun   bool
	isMatch  func(*triggers.DeadLetter) bool
	limiter  *rate.Limiter
}

// NewSelection checks the flags for the dead letters of a function. verb is for the error message,
// such as "replays". The error is an exit.UsageError.
func (c *Choice) NewSelection(function, verb string) (*Selection, error) {
	c.ID, c.IDs = append(c.ID, c.IDs...), nil
	switch {
	case !c.IsGiven() && !c.All:
		return nil, exit.UsageError("choose with IDs, --reason, --after, --before or --attribute; --all " + verb + " all of them")
	case c.IsGiven() && c.All:
		return nil, exit.UsageError("--all selects all of them: remove it, or the other choices")
	case c.Limit < 0:
		return nil, exit.UsageError("--limit must not be negative")
	}
	pace, err := parseRate(c.Rate)
	if err != nil {
		return nil, err
	}
	isMatch, err := c.NewMatch(function, time.Now())
	if err != nil {
		return nil, err
	}
	return &Selection{function: function, limit: c.Limit, dryRun: c.DryRun, isMatch: isMatch, limiter: pace}, nil
}

var ratePattern = regexp.MustCompile(`^(\d{1,9})(?:/([smh]))?$`)

// parseRate parses a rate such as 100/s; an empty text is no limit.
func parseRate(text string) (*rate.Limiter, error) {
	if text == "" {
		return rate.NewLimiter(rate.Inf, 1), nil
	}
	m := ratePattern.FindStringSubmatch(text)
	if m == nil || m[1] == "0" {
		return nil, exit.UsageError(fmt.Sprintf("--rate is %q; write it as 100/s, 30/m or 10/h", text))
	}
	n, _ := strconv.Atoi(m[1]) // only digits
	in := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[m[2]]
	return rate.NewLimiter(rate.Limit(float64(n)/in.Seconds()), 1), nil
}
