package wheel

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func example() *Wheel {
	return &Wheel{
		Name: "Some-thing", Version: "1.2.0", Tag: "py3-none-any", Summary: "Some thing", Description: "# Some thing\n", RequiresPython: ">=3.9",
		Files:   []File{{"thing/more.py", []byte("WORD = 'more'\n")}, {"thing/__init__.py", []byte("from thing.more import WORD\n")}},
		Scripts: []File{{"some-thing", []byte("#!/bin/sh\necho ran\n")}},
	}
}

func written(t *testing.T, w *Wheel) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := w.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The order of the files does not matter.
func TestSameBytes(t *testing.T) {
	first, other := example(), example()
	other.Files[0], other.Files[1] = other.Files[1], other.Files[0]
	if !bytes.Equal(written(t, first), written(t, other)) {
		t.Error("two wheels of the same content differ")
	}
	other.Files[0].Content = []byte("changed")
	if bytes.Equal(written(t, first), written(t, other)) {
		t.Error("different contents have the same bytes")
	}
}

func TestMetadata(t *testing.T) {
	w := example()
	w.Tag = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"
	if w.FileName() != "some_thing-1.2.0-py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64.whl" {
		t.Error(w.FileName())
	}
	content := written(t, w)
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	texts := make(map[string]string)
	for _, f := range archive.File {
		names = append(names, f.Name+" "+f.Mode().String())
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		texts[f.Name] = string(text)
	}
	want := `some_thing-1.2.0.data/scripts/some-thing -rwxr-xr-x
thing/__init__.py -rw-r--r--
thing/more.py -rw-r--r--
some_thing-1.2.0.dist-info/METADATA -rw-r--r--
some_thing-1.2.0.dist-info/WHEEL -rw-r--r--
some_thing-1.2.0.dist-info/RECORD -rw-r--r--`
	if got := strings.Join(names, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := texts["some_thing-1.2.0.dist-info/METADATA"]; got != "Metadata-Version: 2.1\nName: Some-thing\nVersion: 1.2.0\nSummary: Some thing\nRequires-Python: >=3.9\nDescription-Content-Type: text/markdown\n\n# Some thing\n" {
		t.Error(got)
	}
	if got := texts["some_thing-1.2.0.dist-info/WHEEL"]; got != "Wheel-Version: 1.0\nGenerator: drover\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_2_17_x86_64\nTag: py3-none-musllinux_1_1_x86_64\n" {
		t.Error(got)
	}
}

func TestWheelsThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*Wheel){
		`"-x" is not a valid name`:            func(w *Wheel) { w.Name = "-x" },
		`"v1.2.0" is not a version`:           func(w *Wheel) { w.Version = "v1.2.0" },
		`"any" is not a tag`:                  func(w *Wheel) { w.Tag = "any" },
		`each be one line`:                    func(w *Wheel) { w.Summary = "a\nb" },
		`the path "../x"`:                     func(w *Wheel) { w.Files[0].Path = "../x" },
		`the path "/x"`:                       func(w *Wheel) { w.Files[0].Path = "/x" },
		`the wheel has thing/more.py twice`:   func(w *Wheel) { w.Files[1].Path = "thing/more.py" },
		`the path "some_thing-1.2.0.data/scr`: func(w *Wheel) { w.Scripts[0].Path = "a,b" },
	} {
		w := example()
		change(w)
		var out bytes.Buffer
		if err := w.Write(&out); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%v, %d bytes; want %q", err, out.Len(), want)
		}
	}
}

func TestVersion(t *testing.T) {
	for built, want := range map[string]string{
		"v1.2.0":                               "1.2.0",
		"1.2":                                  "1.2",
		"v1.3.0-rc.1":                          "1.3.0rc1",
		"v1.3.0-beta2":                         "1.3.0b2",
		"v1.3.0-alpha":                         "1.3.0a0",
		"v1.2.0+dirty":                         "1.2.0+dirty",
		"v0.0.0-20261201094006-b84e554abcde":   "0.0.0.dev20261201094006+b84e554abcde",
		"v1.2.4-0.20261201094006-b84e554abcde": "1.2.4.dev20261201094006+b84e554abcde",
		"v1.3.0-rc.1.0.20261201094006-b84e554abcde+dirty": "1.3.0.dev20261201094006+b84e554abcde.dirty",
		"(devel)": "0.0.0.dev0",
		"unknown": "0.0.0.dev0",
		"":        "0.0.0.dev0",
	} {
		got := Version(built)
		if got != want || !validVersion.MatchString(got) {
			t.Errorf("%s: %s; want %s", built, got, want)
		}
	}
}

// pip installs the wheel without an index, and its module and its command work.
func TestPipInstalls(t *testing.T) {
	t.Parallel()
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import ensurepip").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("python3 has no ensurepip, which venv needs; Debian: apt-get install python3-venv")
		}
		t.Skip("python3 has no ensurepip, which venv needs; Debian: apt-get install python3-venv")
	}
	dir := t.TempDir()
	w := example()
	path := filepath.Join(dir, w.FileName())
	if err := os.WriteFile(path, written(t, w), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := filepath.Join(dir, "environment")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("python3", "-m", "venv", environment)
	run(filepath.Join(environment, "bin", "python"), "-m", "pip", "install", "--no-index", "--disable-pip-version-check", path)
	if out := run(filepath.Join(environment, "bin", "python"), "-c", "import importlib.metadata as m, thing; print(thing.WORD, m.version('some-thing'))"); out != "more 1.2.0" {
		t.Error(out)
	}
	if out := run(filepath.Join(environment, "bin", "some-thing")); out != "ran" {
		t.Error(out)
	}
	run(filepath.Join(environment, "bin", "python"), "-m", "pip", "uninstall", "--yes", "some-thing")
	if _, err := os.Stat(filepath.Join(environment, "bin", "some-thing")); err == nil {
		t.Error("the command is still there after pip uninstall")
	}
}
