package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-run/drover/daemon/internal/daemontest"
)

// block is a console block of a document, or a file block: ```file NAME, ```python NAME, ```js NAME or ```yaml NAME.
var block = regexp.MustCompile("(?s)```(console|(?:file|python|js|yaml) ([^\n]+))\n(.*?)```")

// repeatable are the commands that change nothing: they run again until their output is as
// documented, since a message takes a moment.
var repeatable = regexp.MustCompile(`^drover (status|tail|explain|dead list|dead show|health|scale explain)\b`)

// TestTranscripts runs the console blocks of the documents, those of one page one after another
// in one directory, and compares the output.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	pages := 0
	for file, text := range documents(t) {
		text, _ = cutFunctionApp(text)
		if !strings.Contains(text, "```console\n") {
			continue
		}
		pages++
		t.Run(filepath.Base(file), func(t *testing.T) {
			if strings.Contains(text, "python3 -m venv") {
				needVenv(t)
			}
			if strings.Contains(text, "npm install") {
				needNPM(t)
			}
			runPage(t, program, text)
		})
	}
	if pages == 0 {
		t.Error("no document has a console block: is the pattern still right?")
	}
}

// cutFunctionApp returns a page without its section that runs a function app, and that section.
func cutFunctionApp(page string) (rest, section string) {
	before, after, found := strings.Cut(page, "\n## Sixty seconds of a function app\n")
	if !found {
		return page, ""
	}
	section, after, _ = strings.Cut(after, "\n## ")
	return before + "\n## " + after, section
}

// TestTranscriptOfAFunctionApp runs the section of README that runs a function app. The app's packages and
// the emulator, which that section sets up, are the test's own: they need no index of packages and no
// fixed port.
func TestTranscriptOfAFunctionApp(t *testing.T) {
	t.Parallel()
	environment := functionAppEnvironment(t, functionAppPythons[len(functionAppPythons)-1])
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	_, section := cutFunctionApp(documents(t)["../../README.md"])
	for _, line := range []string{"$ python3 -m venv .venv\n", "$ .venv/bin/pip install --quiet -r requirements.txt\n", "$ drover emulate storagequeue &\n"} {
		if !strings.Contains(section, line) {
			t.Errorf("README has no line %q any more", line)
		}
		section = strings.Replace(section, line, "", 1)
	}
	runPage(t, program, section, appVariables(environment, "AzureWebJobsStorage="+emulatedStorage(t))...)
}

// needVenv skips a test if python3 cannot make an environment with pip.
func needVenv(t *testing.T) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import ensurepip").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("python3 has no ensurepip, which venv needs; Debian: apt-get install python3-venv")
		}
		t.Skip("python3 has no ensurepip, which venv needs; Debian: apt-get install python3-venv")
	}
}

// needNPM skips a test if there is no Node.js with npm.
func needNPM(t *testing.T) {
	t.Helper()
	needNode(t)
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// runPage writes the files of a text's file blocks and runs its console blocks, in their order. variables
// are added to the environment.
func runPage(t *testing.T, program, text string, variables ...string) {
	t.Helper()
	root := t.TempDir()
	p := &transcript{t: t, root: root, dir: filepath.Join(root, "home")}
	for _, dir := range []string{p.dir, filepath.Join(root, "bin")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(program, filepath.Join(root, "bin", "drover")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, "bin") + ":" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH")
	p.env = append(append(os.Environ(), variables...), "HOME="+p.dir, "PATH="+path)
	defer p.stop()
	for _, found := range block.FindAllStringSubmatch(text, -1) {
		if name := found[2]; name != "" {
			p.write(name, found[3])
			continue
		}
		p.run(found[3])
	}
}

// transcript is the shell session of one page. Its home directory, /etc/drover and /var/lib/drover
// are below root.
type transcript struct {
	t          *testing.T
	root       string
	dir        string
	env        []string
	background []*background
}

type background struct {
	cmd   *exec.Cmd
	ended chan error
}

// below moves the absolute paths of a text below root.
func (p *transcript) below(text string) string {
	return strings.NewReplacer("/etc/drover", p.root+"/etc/drover", "/var/lib/drover", p.root+"/var/lib/drover").Replace(text)
}

// write writes a file. A file in a directory bin can be executed.
func (p *transcript) write(name, text string) {
	p.t.Helper()
	path := p.below(name)
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.dir, name)
	}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(p.below(text)), 0o700)
	}
	if err != nil {
		p.t.Fatal(err)
	}
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
	if line, is := strings.CutSuffix(line, " &"); is {
		p.start(line, want)
		return
	}
	if strings.Contains(line, " --debug") {
		p.waitFor(line, want, func() (string, bool) { return p.debug(line, want), false })
		return
	}
	p.waitFor(line, want, func() (string, bool) {
		out, _ := p.shell(line).CombinedOutput() // the output shows the failure, too
		return string(out), repeatable.MatchString(line)
	})
}

// waitFor compares an output with the documented one, until they match or the output cannot change.
func (p *transcript) waitFor(line, want string, output func() (text string, changes bool)) {
	p.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		out, changes := output()
		out = strings.ReplaceAll(out, p.root, "")
		if matches(out, want) {
			return
		}
		if !changes || time.Now().After(deadline) {
			p.t.Fatalf("$ %s\nprints\n%s\ndocumented is\n%s", line, out, want)
		}
	}
}

func (p *transcript) shell(line string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), "bash", "-c", p.below(line))
	cmd.Dir, cmd.Env = p.dir, p.env
	return cmd
}

var (
	debugPrompt = regexp.MustCompile(`^(\(Pdb\) |debug> )(.*)`)
	// The escape codes with which node inspect colors text and replaces a line.
	terminalColor = regexp.MustCompile("\x1b\\[[0-9;]*m|\r")
	replacedLine  = regexp.MustCompile("(?m)^.*\x1b\\[1G\x1b\\[0[JK]")
)

// debug runs a command in a terminal. It types the text that follows each prompt of a debugger in the
// documented output, once the debugger has printed the previous line.
func (p *transcript) debug(line, want string) string {
	p.t.Helper()
	cmd := p.shell(line)
	cmd.Env = append(cmd.Env, "TERM=dumb")
	s := daemontest.StartTerminal(p.t, cmd)
	before := ""
	for each := range strings.SplitSeq(want, "\n") {
		if typed := debugPrompt.FindStringSubmatch(each); typed != nil {
			if !strings.Contains(before, "...") {
				s.Expect(before)
			}
			s.Expect(typed[1])
			s.Type(typed[2] + "\n")
			each = typed[2]
		}
		before = each
	}
	s.Wait()
	return replacedLine.ReplaceAllString(terminalColor.ReplaceAllString(s.Text(), ""), "")
}

// start runs a command in the background. It waits for the documented output, or, without one,
// until a daemon of the directory is ready.
func (p *transcript) start(line, want string) {
	p.t.Helper()
	cmd, log := p.shell("exec "+line), newPrinted()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.background = append(p.background, &background{cmd, ended})
	if want == "" {
		p.command("drover health", "ok")
		return
	}
	p.waitFor(line, want, func() (string, bool) {
		select {
		case err := <-ended:
			ended <- err
			return log.String(), false
		default:
			return log.String(), true
		}
	})
}

// stop ends the commands in the background, the latest first.
func (p *transcript) stop() {
	for _, b := range slices.Backward(p.background) {
		_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-b.ended; err != nil {
			p.t.Errorf("%v: %v\n%s", b.cmd.Args, err, b.cmd.Stdout)
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
