package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestModules checks that the product can be built without the other modules: go install ignores
// go.work and refuses replaced modules, and an image has only this module.
func TestModules(t *testing.T) {
	ignored := strings.Fields(readFile(t, ".dockerignore"))
	if strings.Contains(readFile(t, "go.mod"), "replace") {
		t.Error("go.mod replaces a module: go install refuses that")
	}
	if !slices.Contains(ignored, "go.work") {
		t.Error(".dockerignore does not list go.work")
	}
	others, err := filepath.Glob("*/go.mod")
	if err != nil || len(others) < 3 {
		t.Fatalf("modules: %v, %v", others, err)
	}
	work, makefile := strings.Fields(readFile(t, "go.work")), readFile(t, "Makefile")
	for _, file := range others {
		name := filepath.Dir(file)
		if !strings.HasPrefix(readFile(t, file), "module "+modulePath+"/"+name+"\n") {
			t.Errorf("%s is not of the module %s/%s", file, modulePath, name)
		}
		if !slices.Contains(ignored, name) {
			t.Errorf(".dockerignore does not list %s, a separate module", name)
		}
		if name == "tools" { // no packages, only the versions of tools
			continue
		}
		if !slices.Contains(work, "./"+name) {
			t.Errorf("go.work does not use %s", name)
		}
		if !strings.Contains(makefile, "./"+name+"/...") {
			t.Errorf("the Makefile does not test %s", name)
		}
	}
	alone, inWorkspace := dependencies(t, "off"), dependencies(t, "")
	if alone != inWorkspace {
		t.Errorf("go.work changes the versions that the product is built with; go work sync writes them to go.mod\nalone:\n%s\nin the workspace:\n%s", alone, inWorkspace)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dependencies lists the modules in the program, with their versions.
func dependencies(t *testing.T, workspace string) string {
	t.Helper()
	c := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", ".")
	var errs bytes.Buffer
	c.Env, c.Stderr = append(os.Environ(), "GOWORK="+workspace), &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("GOWORK=%s: %v\n%s", workspace, err, errs.String())
	}
	lines := strings.Split(string(out), "\n")
	slices.Sort(lines)
	return strings.TrimSpace(strings.Join(slices.Compact(lines), "\n"))
}
