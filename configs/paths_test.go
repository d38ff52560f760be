package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathsThatDoNotExist(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"app/function_app.py", "app/index.js", "plain", "function_app/function_app.py"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "version: 1\nfunctions:\n  f:\n    trigger: {nats: {}}\n    handler:\n"
	for name, test := range map[string]struct{ handler, want string }{
		"python":                    {"      python: {path: ./app}", ""},
		"a python file":             {"      python: {path: ./app/function_app.py}", ""},
		"a directory like a module": {"      python: {path: ./function_app}", ""},
		"the directory itself":      {"      node: {path: .}", ""},
		"a node directory":          {"      node: {path: ./app}", ""},
		"no python":                 {"      python: {path: ./nothere}", "6:22: " + dir + "/nothere does not exist; path is"},
		"no python file":            {"      python: {path: ./app/other.py}", "6:22: " + dir + "/app/other.py does not exist"},
		"no directory":              {"      python: {path: ./plain}", "6:22: " + dir + "/plain is not a directory"},
		"no node":                   {"      node: {path: ./nothere}", "6:20: " + dir + "/nothere does not exist"},
		"no node file":              {"      node: {path: ./app/other.mjs}", "6:20: " + dir + "/app/other.mjs does not exist"},
		"no worker":                 {"      worker: {path: ./nothere, command: [sh]}", "6:22: " + dir + "/nothere does not exist"},
		"no worker's":               {"      worker: {path: ./app, command: [./run]}", "6:38: " + dir + "/app/run does not exist; command"},
		"exec":                      {"      exec: {command: [cat]}", ""},
		"no exec's dir":             {"      exec: {dir: ./nothere, command: [cat]}", "6:19: " + dir + "/nothere does not exist; dir is"},
		"no exec's command":         {"      exec: {command: [./run]}", dir + "/run does not exist; command"},
		"an app":                    {"      python: {app: shop}\napps:\n  shop: {path: ./nothere}", "8:16: " + dir + "/nothere does not exist"},
		"an app that nobody uses":   {"      exec: {command: [cat]}\napps:\n  shop: {path: ./nothere}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("drover.yaml", []byte(head+test.handler+"\n"), dir, func(string) (string, bool) { return "", false })
			if err != nil {
				t.Fatal(err)
			}
			err = c.CheckPaths()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}
