package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completed requests the candidates of the last word, without their descriptions.
func completed(t *testing.T, words ...string) (out []string) {
	t.Helper()
	status, text, errs := command(t.Context(), nil, nil, append([]string{"complete", "--"}, words...)...)
	if status != ExitOK || errs != "" {
		t.Fatalf("complete %q: status %d\n%s", words, status, errs)
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		out = append(out, name)
	}
	return out
}

// completionDir has a configuration that does not load, because a variable is not set. Its names
// are still found.
func completionDir(t *testing.T) string {
	t.Helper()
	return write(t, map[string]string{
		"drover.yaml":        "functions:\n  greet: {trigger: {nats: {}}, handler: {go: g}}\n  grow: {}\n  '$(rm -rf .)': {}\nconnections: {bus: {connection_string: '${UNSET_FOR_SURE}'}}\n",
		"other.yaml":         "functions: {another: {}}\n",
		"broken.yaml":        "functions: [\n",
		"order.json":         "{}",
		"app/functions.yaml": "",
	})
}

func TestComplete(t *testing.T) {
	t.Chdir(completionDir(t))
	for line, want := range map[string]string{
		"inv":                             "invoke",
		"scale ":                          "explain simulate",
		"scale s":                         "simulate",
		"invoke ":                         "greet grow",
		"invoke gre":                      "greet",
		"pause greet -c ":                 ":yaml",
		"profile gre":                     "greet",
		"profile greet -o ":               ":files",
		"profile greet --output ":         ":files",
		"check ":                          ":yaml",
		"send -c other.yaml ":             "another",
		"send -cother.yaml ":              "another",
		"send --config=other.yaml ":       "another",
		`send --config="other.yaml" `:     "another",
		"send -c broken.yaml ":            "",
		"send -c nowhere.yaml ":           "",
		"send -c ":                        ":yaml",
		"send x --via ":                   "bus",
		"send x --encoding ":              "base64 text",
		"send x --encoding=b":             "--encoding=base64",
		"send x --file=":                  ":files",
		"send x --body ":                  "",
		"send x -H a=b ":                  "",
		"send x --count 3 --enc":          "--encoding",
		"send --nonsense ":                "greet grow",
		"status --json --o":               "--once",
		"invoke --body x ":                "greet grow",
		"invoke -- --":                    "",
		"invoke greet --file ":            ":files",
		"init ":                           "python node go http azure azure-queues",
		"init go ":                        ":dirs",
		"completion ":                     "bash zsh fish",
		"scale simulate --trace st":       "steady step :files",
		"scale simulate --plot ":          ":dirs",
		"nonsense ":                       "",
		"worker test ":                    "node python",
		"worker test --app ":              ":dirs",
		"worker typings ":                 ":dirs",
		"worker npm-package ":             ":dirs",
		"worker test --modes ":            "one threads async",
		"comp":                            "completion", // hidden commands are not listed
		"emulate servicebus --listen 1:2": "",
	} {
		words := strings.Split(line, " ")
		if got := strings.Join(completed(t, words...), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	commands := completed(t, "")
	for _, c := range testParser(t).Model.Children {
		if slices.Contains(commands, c.Name) == c.Hidden {
			t.Errorf("of the command %s, hidden: %v, the completions are %v", c.Name, c.Hidden, commands)
		}
	}
	if got := completed(t); len(got) != len(commands) {
		t.Errorf("without a word: %v", got)
	}
	t.Setenv("DROVER_CONFIG", "other.yaml")
	if got := completed(t, "invoke", ""); !slices.Equal(got, []string{"another"}) {
		t.Errorf("with another configuration in the environment: %v", got)
	}
}

func TestCompletionScriptsNameTheProgram(t *testing.T) {
	for program, want := range map[string]string{"/usr/local/bin/orders": "orders", "": "drover", "/tmp/a b; c": "drover"} {
		for _, shell := range []string{"bash", "zsh", "fish"} {
			out, errs := newPrinted(), newPrinted()
			status := Command(t.Context(), []string{"completion", shell}, &IO{Out: out, Err: errs, Program: program})
			if text := out.String(); status != ExitOK || strings.Contains(text, "PROGRAM") || !strings.Contains(text, "command "+want+" complete -- ") {
				t.Errorf("%s for %q: status %d\n%s%s", shell, program, status, text, errs)
			}
		}
	}
	if status, _, errs := command(t.Context(), nil, nil, "completion", "tcsh"); status != ExitUsage || !strings.Contains(errs, `must be one of "bash","zsh","fish"`) {
		t.Errorf("status %d\n%s", status, errs)
	}
}

// shell runs a script in a shell that has the completions, with this program in its path.
func shell(t *testing.T, name, script string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%s is not here: apt-get install %s", name, name)
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := command(t.Context(), nil, nil, "completion", name)
	file := filepath.Join(t.TempDir(), "completions")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-c", strings.ReplaceAll(script, "COMPLETIONS", file)}, args...)...)
	cmd.Dir = completionDir(t)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	// The words are split as bash splits a line: also at = and :.
	out := shell(t, "bash", `source COMPLETIONS
complete -p drover
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _drover; echo "$*: $(printf '%s\n' "${COMPREPLY[@]}" | LC_ALL=C sort | xargs)"; }
try drover inv
try drover invoke ''
try drover invoke gre
try drover send x --encoding = b
try drover send x --encoding =
try drover send -c = other.yaml ''
try drover emulate servicebus --listen 127.0.0.1 : 50
try drover check ''
try drover check o
try drover invoke greet --file or
try drover invoke greet --file = or
try drover init go ''
try drover nonsense ''`)
	for _, want := range []string{
		"complete -F _drover drover",
		"drover inv: invoke",
		"drover invoke : greet grow",
		"drover invoke gre: greet",
		"drover send x --encoding = b: base64",
		"drover send x --encoding =: base64 text",
		"drover emulate servicebus --listen 127.0.0.1 : 50: ",
		"drover check : app broken.yaml drover.yaml other.yaml",
		"drover check o: other.yaml",
		"drover invoke greet --file or: order.json",
		"drover invoke greet --file = or: order.json",
		"drover init go : app",
		"drover nonsense : ",
	} {
		if !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"drover inv":                       "invoke\t",
		"drover invoke gre":                "greet\ta function of drover.yaml",
		"drover send x --encoding=b":       "--encoding=base64",
		"drover check o":                   "other.yaml",
		"drover invoke greet --file or":    "order.json",
		"drover invoke greet --file=or":    "--file=order.json",
		"drover init go ap":                "app/",
		"drover check or":                  "",
		"drover emulate servicebus --sess": "--session-queue\t",
	} {
		out := shell(t, "fish", "source COMPLETIONS; complete -C $argv[1]", "--", line)
		if want == "" && out != "" || !strings.HasPrefix(out, want) {
			t.Errorf("%q: %q, want %q", line, out, want)
		}
	}
}

func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	// A function replaces _describe of the completion system, and prints its arguments.
	out := shell(t, "zsh", `compdef() { echo "compdef $*"; }
source COMPLETIONS
_describe() { print -r -- "$4: ${(P)4}" }
_files() { print -r -- "files $*" }
try() { words=("$@"); CURRENT=$#; PREFIX=$words[-1]; _drover; }
try drover invoke gre
try drover send x --encoding ''
try drover check ''
try drover invoke greet --file ''
try drover init go ''
true`)
	for _, want := range []string{"compdef _drover drover", "found: greet:a function of drover.yaml", "found: base64 text", "files -g *.(yaml|yml)", "files ", "files -/"} {
		if !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
}
