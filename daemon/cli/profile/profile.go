// Package profile is `drover profile`: it requests a profile of a function from the daemon, and writes it as a
// flame graph and in the format of go tool pprof. The command calls it, from one goroutine.
package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/profile/flamegraph"
	"github.com/drover-run/drover/daemon/cli/term"
	"github.com/drover-run/drover/daemon/internal/api"
)

// Client is the part of admin.Client that this package uses.
type Client interface {
	PostJSON(ctx context.Context, path string, body []byte, into any) error
}

// Options are the arguments and flags of the command, without those of the connection.
type Options struct {
	Function string        `arg:"" help:"Profile this function."`
	For      time.Duration `default:"10s" help:"Sample for this long, from 1s to 5m (default: 10s)."`
	Output   string        `short:"o" placeholder:"FILE" help:"Write the flame graph to this file, and the pprof file beside it (default: the function's name with .svg and .pb.gz)."`
}

// Help implements kong.HelpProvider.
func (*Options) Help() string {
	return `Shows where a function spends its time. Calls in all workers and instances are sampled about 100 times per second. Two files are written: a flame graph, which a browser opens, and a profile for go tool pprof. Functions continue to run; Ctrl-C ends the profile without files.

Python functions are sampled whether they compute or wait, async ones only while they run on the event loop. Go and Node.js functions are sampled while they compute.

Examples:

    drover profile orders
    drover profile orders --for 1m --output slow.svg
`
}

// Check returns an error if a flag is wrong.
func (o *Options) Check() error {
	switch {
	case o.For < api.MinProfile || o.For > api.MaxProfile:
		return exit.UsageError(fmt.Sprintf("--for is %v; use a duration from 1s to 5m", o.For))
	case o.Output != "" && filepath.Ext(o.Output) != ".svg":
		return exit.UsageError(fmt.Sprintf("--output is %q; name a file that ends with .svg", o.Output))
	}
	return nil
}

// Run requests the profile, writes its files, and prints their names. If ctx ends first, it writes nothing.
func (o *Options) Run(ctx context.Context, client Client, out, notes io.Writer) error {
	if err := o.Check(); err != nil {
		return err
	}
	if err := term.Print(notes, fmt.Sprintf("profiling function %s for %v\n", term.Printable(o.Function), o.For)); err != nil {
		return err
	}
	var got api.Profile
	if err := client.PostJSON(ctx, api.ProfilePath(o.Function, o.For), nil, &got); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted; the workers no longer sample, and nothing was written")
		}
		return err
	}
	if len(got.Pprof) == 0 {
		return fmt.Errorf("%s; nothing was written", o.explainEmpty(&got))
	}
	return o.write(&got, out)
}

// explainEmpty returns why a profile has no samples.
func (o *Options) explainEmpty(got *api.Profile) string {
	why := fmt.Sprintf("no call of function %s ran within %v: send it messages meanwhile, or profile it for longer with --for", o.Function, o.For)
	switch {
	case got.Calls > 0 && got.Kind == api.ProfileCPU:
		why = fmt.Sprintf("%s of function %s ran within %v, and none that began after the start of the profile computed at a sample: profile it for longer with --for", count(got.Calls, "call"), o.Function, o.For)
	case got.Calls > 0:
		why = fmt.Sprintf("%s of function %s ran within %v, and none was running at a sample: they are too short, or wait in an event loop; profile it for longer with --for", count(got.Calls, "call"), o.Function, o.For)
	}
	if len(got.Notes) > 0 {
		why += " (" + strings.Join(got.Notes, "; ") + ")"
	}
	return why
}

// write writes both files, and prints how to open them.
func (o *Options) write(got *api.Profile, out io.Writer) error {
	parsed, err := profile.ParseData(got.Pprof)
	if err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	svg := cmp.Or(o.Output, fileName(o.Function)+".svg")
	pb := strings.TrimSuffix(svg, ".svg") + ".pb.gz"
	graph := flamegraph.Render(parsed, flamegraph.Titles{Title: "drover profile " + o.Function, Subtitle: describe(got, parsed)})
	if err := os.WriteFile(svg, []byte(graph), 0o600); err != nil {
		return fmt.Errorf("writing the flame graph: %w", err)
	}
	if err := os.WriteFile(pb, got.Pprof, 0o600); err != nil {
		return fmt.Errorf("writing the profile: %w", err)
	}
	text := fmt.Sprintf("%s\n", describe(got, parsed))
	for _, note := range got.Notes {
		text += "note: " + note + "\n"
	}
	text += fmt.Sprintf("wrote %s, a flame graph: open it in a browser\nwrote %s: open it with go tool pprof %s\n", svg, pb, quote(pb))
	return term.Print(out, term.Printable(text))
}

// describe returns the size of a profile in one line.
func describe(got *api.Profile, p *profile.Profile) string {
	var sum time.Duration
	for _, s := range p.Sample {
		sum += time.Duration(s.Value[len(s.Value)-1])
	}
	what := "of the calls' time"
	if got.Kind == api.ProfileCPU {
		what = "of processor time"
	}
	text := fmt.Sprintf("%s, %s, %v %s in %vs", count(got.Calls, "call"), count(got.Samples, "sample"), sum.Round(time.Millisecond), what, got.Seconds)
	if got.Workers > 0 {
		text += ", in " + count(int64(got.Workers), "worker")
	}
	return text
}

// count returns a number of things.
func count(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// fileName returns the name of a function as the name of a file in this directory. Names may have slashes, for
// example.
func fileName(function string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, strings.TrimLeft(function, "-."))
}

// quote returns a file's name as a shell reads it.
func quote(name string) string {
	if strings.IndexFunc(name, func(r rune) bool {
		return !strings.ContainsRune("-_./", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
