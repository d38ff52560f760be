package edit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func noEnv(string) (string, bool) { return "", false }

func fileWith(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drover.yaml")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil { // another mode than a temporary file's
		t.Fatal(err)
	}
	return path
}

var two = []Number{{"processes", 2}, {"threads", 16}}

func TestSetNumbers(t *testing.T) {
	const trigger = "trigger: {nats: {}}"
	for name, test := range map[string]struct{ app, before, after, diff string }{
		"an app, in place": {"shop",
			"# top\napps:\n  shop: # ours\n    path: ./app # here\n    processes: 8   # too many\n    threads: 1\n    kill_grace: 1s\nfunctions: {f: {" + trigger + ", handler: {python: {app: shop}}}} # end",
			"# top\napps:\n  shop: # ours\n    path: ./app # here\n    processes: 2   # too many\n    threads: 16\n    kill_grace: 1s\nfunctions: {f: {" + trigger + ", handler: {python: {app: shop}}}} # end",
			"@@ line 5 @@\n-    processes: 8   # too many\n+    processes: 2   # too many\n@@ line 6 @@\n-    threads: 1\n+    threads: 16\n"},
		"an app, added": {"shop",
			"apps:\n  shop:\n    path: ./app # here\n    kill_grace: 1s\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"apps:\n  shop:\n    path: ./app # here\n    processes: 2\n    threads: 16\n    kill_grace: 1s\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"@@ line 3 @@\n     path: ./app # here\n+    processes: 2\n+    threads: 16\n"},
		"one of two": {"shop",
			"apps:\n  shop:\n    path: ./app\n    processes: 8\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"apps:\n  shop:\n    path: ./app\n    processes: 2\n    threads: 16\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"@@ line 4 @@\n-    processes: 8\n+    processes: 2\n+    threads: 16\n"},
		"an app in braces": {"shop",
			"apps: {shop: {path: ./app }, other: {path: ./other, processes: 1}}\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"apps: {shop: {path: ./app, processes: 2, threads: 16 }, other: {path: ./other, processes: 1}}\nfunctions:\n  f: {" + trigger + ", handler: {python: {app: shop}}}\n",
			"-apps: {shop: {path: ./app }"},
		"the short form": {"app",
			"functions:\n  f:\n    " + trigger + "\n    handler: {python: {path: ./app}}  # käse ☃\n",
			"functions:\n  f:\n    " + trigger + "\n    handler: {python: {path: ./app, processes: 2, threads: 16}}  # käse ☃\n", "+    handler: {python: {path: ./app, processes: 2, threads: 16}}"},
		"the short form, in place": {"app",
			"functions:\n  f: {" + trigger + ", handler: {python: {threads: 4, path: ./app, processes: 4}}}\n",
			"functions:\n  f: {" + trigger + ", handler: {python: {threads: 16, path: ./app, processes: 2}}}\n", "+"},
		"the short form in lines": {"app",
			"functions:\n  f:\n    " + trigger + "\n    handler:\n      python:\n        path: ./app",
			"functions:\n  f:\n    " + trigger + "\n    handler:\n      python:\n        path: ./app\n        processes: 2\n        threads: 16", "+"},
		"two that share": {"app",
			"functions:\n  f: {" + trigger + ", handler: {python: {path: ./app}}}\n  g:\n    trigger: {nats: {}}\n    handler:\n      python: {\n        path: ./app,\n        processes: 0\n      }\n",
			"functions:\n  f: {" + trigger + ", handler: {python: {path: ./app, processes: 2, threads: 16}}}\n  g:\n    trigger: {nats: {}}\n    handler:\n      python: {threads: 16, \n        path: ./app,\n        processes: 2\n      }\n", "+"},
		"lines that end as on Windows": {"shop",
			"apps:\r\n  shop:\r\n    path: ./app\r\nfunctions:\r\n  f: {" + trigger + ", handler: {python: {app: shop}}}\r\n",
			"apps:\r\n  shop:\r\n    path: ./app\r\n    processes: 2\r\n    threads: 16\r\nfunctions:\r\n  f: {" + trigger + ", handler: {python: {app: shop}}}\r\n", "+    processes: 2\n"},
		"nothing to do": {"app", "functions:\n  f: {" + trigger + ", handler: {python: {path: ./app, processes: 2, threads: 16}}}\n",
			"functions:\n  f: {" + trigger + ", handler: {python: {path: ./app, processes: 2, threads: 16}}}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := fileWith(t, test.before)
			n, err := SetNumbers(path, noEnv, test.app, two)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(n.Diff, test.diff) || test.diff == "" && n.Diff != "" {
				t.Errorf("the diff is\n%swant\n%s", n.Diff, test.diff)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != test.before {
				t.Errorf("it was changed before it was to be: %v", err)
			}
			if err := n.Write(); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil || string(text) != test.after {
				t.Errorf("it is\n%s\nwant\n%s", text, test.after)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("its mode is %v", info.Mode())
			}
			if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
				t.Errorf("beside it are %v", all)
			}
		})
	}
}

func TestSetNumbersThatHaveNoPlace(t *testing.T) {
	for name, test := range map[string]struct{ app, text, want string }{
		"from the environment": {"app", "functions:\n  f: {trigger: {nats: {}}, handler: {python: {path: ./app, processes: '${N}'}}}\n",
			"functions.f.handler.python.processes is ${N}, which is not a number in the file: set it to 2 at its origin"},
		"another app":  {"other", "functions:\n  f: {trigger: {nats: {}}, handler: {python: {path: ./app}}}\n", "it has no place for the numbers of app other"},
		"a Go handler": {"app", "functions:\n  f: {trigger: {nats: {}}, handler: {go: f}}\n", "no place"},
		"a language without threads": {"app", "functions:\n  f: {trigger: {nats: {}}, handler: {node: {path: ./app}}}\n",
			"the configuration with these numbers would be invalid"},
		"a wrong file": {"app", "functions: [", "YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			path := fileWith(t, test.text)
			_, err := SetNumbers(path, func(string) (string, bool) { return "8", true }, test.app, two)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != test.text {
				t.Error("it was changed")
			}
		})
	}
	if _, err := SetNumbers(filepath.Join(t.TempDir(), "none.yaml"), noEnv, "app", two); err == nil {
		t.Error("of a file that is not there: no error")
	}
}

func TestNumbersAreNotWrittenOverAnother(t *testing.T) {
	path := fileWith(t, "functions:\n  f: {trigger: {nats: {}}, handler: {python: {path: ./app}}}\n")
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	// By a link: the paths in it are relative to that.
	n, err := SetNumbers(link, noEnv, "app", two)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Write(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is no link any more: %v", err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "threads: 16") {
		t.Errorf("%s", text)
	}
	n, err = SetNumbers(path, noEnv, "app", []Number{{"processes", 3}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("functions: {}\n# somebody else's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Write(); err == nil || !strings.Contains(err.Error(), "has changed meanwhile") {
		t.Errorf("%v", err)
	}
}
