package cli

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")

// repeatable are the commands that change nothing: they run again until their output is as
// documented, since a message takes a moment.
var repeatable = regexp.MustCompile(`^drover (status|tail|explain|dead list|dead show|health)\b`)

// TestTranscripts runs the console blocks of the documents, those of one page one after another
// in one directory, and compares what is printed.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	pages := 0
	for file, text := range documents(t) {
		blocks := consoleBlock.FindAllStringSubmatch(text, -1)
		if len(blocks) == 0 {
			continue
		}
		pages++
		t.Run(filepath.Base(file), func(t *testing.T) {
			p := &transcript{t: t, program: program, dir: t.TempDir()}
			defer p.stop()
			for _, block := range blocks {
				p.run(block[1])
			}
		})
	}
	if pages == 0 {
		t.Error("no document has a console block: is the pattern still right?")
	}
}

// transcript is the shell session of one page.
type transcript struct {
	t          *testing.T
	program    string
	dir        string
	background []*exec.Cmd
}

// run runs the commands of a block: lines that begin with "$ ". The lines that follow are their
// output.
func (p *transcript) run(block string) {
	p.t.Helper()
	for part := range strings.SplitSeq("\n"+strings.TrimRight(block, "\n"), "\n$ ") {
		line, want, _ := strings.Cut(part, "\n")
		if line == "" {
			continue
		}
		p.command(line, want)
	}
}

func (p *transcript) command(line, want string) {
	p.t.Helper()
	if dir, is := strings.CutPrefix(line, "cd "); is {
		p.dir = filepath.Join(p.dir, dir)
		return
	}
	args, calls := droverArgs(line)
	if !calls {
		p.t.Fatalf("%s: only drover and cd can be tested", line)
	}
	if strings.HasSuffix(line, " &") {
		p.start(args)
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		out, _ := p.drover(args).CombinedOutput() // the output says what the exit status says
		if matches(string(out), want) {
			return
		}
		if !repeatable.MatchString(line) || time.Now().After(deadline) {
			p.t.Fatalf("$ %s\nprints\n%s\ndocumented is\n%s", line, out, want)
		}
	}
}

func (p *transcript) drover(args []string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), p.program, args...)
	cmd.Dir = p.dir
	return cmd
}

// start runs a command in the background, and waits until a daemon of the directory is ready.
func (p *transcript) start(args []string) {
	p.t.Helper()
	cmd, log := p.drover(args), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.background = append(p.background, cmd)
	p.command("drover health", "ok")
}

func (p *transcript) stop() {
	for _, cmd := range p.background {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("%v: %v\n%s", cmd.Args, err, cmd.Stdout)
		}
	}
}

// matches reports whether an output is as documented: "..." in a line is any text, and alone in
// a line any lines.
func matches(out, want string) bool {
	pattern := regexp.QuoteMeta(strings.TrimSpace(want))
	pattern = strings.ReplaceAll(pattern, `\.\.\.`, `.*`)
	var lines []string
	for line := range strings.SplitSeq(pattern, "\n") {
		if line == ".*" {
			line = `(?s:.*)`
		}
		lines = append(lines, line)
	}
	text := regexp.MustCompile(`[ \t]+\n`).ReplaceAllString(strings.TrimSpace(out)+"\n", "\n")
	return regexp.MustCompile(`\A` + strings.Join(lines, "\n") + `\n?\z`).MatchString(strings.TrimRight(text, "\n"))
}

func TestMatches(t *testing.T) {
	for name, c := range map[string]struct {
		out, want string
		is        bool
	}{
		"same":          {"a\nb\n", "a\nb", true},
		"other":         {"a\n", "b", false},
		"more":          {"a\nb\n", "a", false},
		"any text":      {"took 3ms (of 5)\n", "took ... (of 5)", true},
		"any lines":     {"a\nb\nc\nd\n", "a\n...\nd", true},
		"no lines":      {"a\nd\n", "a\n...\nd", false},
		"a dot is one":  {"axb\n", "a.b", false},
		"spaces at end": {"a   \n", "a", true},
	} {
		if matches(c.out, c.want) != c.is {
			t.Errorf("%s: %q documented as %q: matches %v", name, c.out, c.want, !c.is)
		}
	}
}
