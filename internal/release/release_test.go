package release

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// root is the source tree.
const root = "../.."

// The patched copies of libraries match the versions in go.mod, and compile.
func TestLibraryCopies(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modFile, err := prepareModule(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(modFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range copies {
		if !strings.Contains(string(text), "\nreplace "+library.module+" => ./bin/release/"+filepath.Base(library.dir())+"\n") {
			t.Errorf("%s does not replace %s:\n%s", modFile, library.module, text)
		}
		build := exec.Command("go", "build", ".")
		build.Dir, build.Env = filepath.Join(source, library.dir()), append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", library.module, err, out)
		}
		if tests, err := filepath.Glob(filepath.Join(build.Dir, "*_test.go")); err != nil || len(tests) > 0 {
			t.Errorf("tests of %s were copied: %v, %v", library.module, tests, err)
		}
	}
}

// Every method that kong calls by name is in kongMethods: a missing hook would panic.
func TestKongMethods(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", copies[0].module)
	list.Dir = root
	dir, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	call := regexp.MustCompile(`(?:getMethod\(|applyHook\()[^"\n]*"(\w+)"`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			if found++; !slices.Contains(kongMethods, m[1]) {
				t.Errorf("%s calls the method %s, which is not in kongMethods", filepath.Base(file), m[1])
			}
		}
	}
	if found < len(kongMethods) {
		t.Errorf("found only %d calls of methods by name", found)
	}
}

// A different version of a library is an error with the file.
func TestOtherVersions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		library    libraryCopy
		file, want string
	}{
		{copies[0], "callbacks.go", "callbacks.go has"},
		{copies[0], "other.go", "7 changes are for files that it does not have"},
		{copies[1], "other.go", "1 changes are for files that it does not have"},
	} {
		from := t.TempDir()
		if err := os.WriteFile(filepath.Join(from, c.file), []byte("package library\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.library.write(from, filepath.Join(t.TempDir(), "copy")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.file, err)
		}
	}
}

// The program does not use the large packages that were replaced.
func TestNothingLargeIsLinked(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-deps", ".")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		// text/template and html/template call methods by name, so that the linker keeps every exported
		// method of the program: 6 MB.
		for _, unwanted := range []string{"google.golang.org/grpc", "golang.org/x/image", "testing", "text/template", "html/template", "github.com/valyala/fasthttp"} {
			if name == unwanted || strings.HasPrefix(name, unwanted+"/") {
				t.Errorf("the program links %s; docs/performance.md has the sizes, and what to use instead", name)
			}
		}
	}
}

func example(t *testing.T) (Config, *program) {
	path := filepath.Join(t.TempDir(), "drover")
	if err := os.WriteFile(path, []byte("the program"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Source: root, Out: t.TempDir(), Log: io.Discard},
		&program{Target: targets[0], path: path, version: "v1.2.0", time: time.Date(2026, 12, 1, 9, 36, 35, 0, time.UTC)}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	cfg, p := example(t)
	if _, err := exec.LookPath("xz"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("xz is missing: apt-get install xz-utils")
	}
	if err := writeArchive(t.Context(), cfg, p); err != nil {
		t.Fatal(err)
	}
	content, err := exec.Command("xz", "--decompress", "--stdout", filepath.Join(cfg.Out, "drover_1.2.0_linux_amd64.tar.xz")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for archive := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(p.time) || header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s: time %v, owner %d:%d", header.Name, header.ModTime, header.Uid, header.Gid)
		}
		got = append(got, header.FileInfo().Mode().String()+" "+header.Name)
	}
	want := []string{
		"-rw-r--r-- drover_1.2.0_linux_amd64/CHANGELOG.md", "-rw-r--r-- drover_1.2.0_linux_amd64/README.md", "-rwxr-xr-x drover_1.2.0_linux_amd64/drover",
		"-rw-r--r-- drover_1.2.0_linux_amd64/drover.service", "-rw-r--r-- drover_1.2.0_linux_amd64/drover@.service",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the archive has %q", got)
	}
}

// The package has exactly the files that its description names, with units for /usr/bin.
func TestStagedDeb(t *testing.T) {
	t.Parallel()
	_, p := example(t)
	staging := t.TempDir()
	if err := stageDeb(root, p, staging); err != nil {
		t.Fatal(err)
	}
	description, err := os.ReadFile(filepath.Join(staging, "nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(staging)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if name != "nfpm.yaml" && !regexp.MustCompile(`(src|install|remove): `+regexp.QuoteMeta(name)+`\b`).Match(description) {
			t.Errorf("%s is not in the package's description", name)
		}
		info, err := e.Info()
		if err != nil || !info.ModTime().Equal(p.time) {
			t.Errorf("%s: %v, %v", name, info.ModTime(), err)
		}
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		unit, err := os.ReadFile(filepath.Join(staging, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(unit), "/usr/local") || strings.Contains(string(unit), "Install: copy") || strings.Contains(string(unit), "systemctl daemon-reload") || !strings.Contains(string(unit), "ExecStart=/usr/bin/drover run") {
			t.Errorf("%s is\n%s", name, unit)
		}
	}
}

func TestWrongRelease(t *testing.T) {
	t.Parallel()
	cfg, _ := example(t)
	cfg.Only = "plan9/386"
	if _, err := Build(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `no release is built for "plan9/386"; choose one of linux/amd64, linux/arm64, darwin/arm64`) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Out, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Only = ""
	if _, err := Build(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "has thesis.tex, which is not part of a release; name an empty directory") {
		t.Error(err)
	}
}

// Size limits, in bytes. The target for the program is 34,000,000; docs/performance.md explains why it is
// larger.
const (
	binaryLimit  = 34_500_000
	archiveLimit = 12_000_000
)

// TestRelease builds the release of this platform twice, in different directories. Both are identical,
// their sizes are within the limits, and each command has the same help as a plain build.
func TestRelease(t *testing.T) {
	if os.Getenv("DROVER_TEST_RELEASE") == "" {
		t.Skip("builds the program three times; run it with DROVER_TEST_RELEASE=1")
	}
	t.Parallel()
	target := runtime.GOOS + "/" + runtime.GOARCH
	var releases [2]string
	from := root // the second clone is a clone of the first, because others may commit meanwhile
	for i := range releases {
		source := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i), "drover")
		if out, err := exec.Command("git", "clone", "--quiet", "--no-hardlinks", from, source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		from, releases[i] = source, filepath.Join(t.TempDir(), "out")
		names, err := Build(t.Context(), Config{Source: source, Out: releases[i], Only: target, Log: t.Output(), NFPM: tool(t, "nfpm"), SBOM: tool(t, "cyclonedx-gomod")})
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != 6 {
			t.Errorf("the release has %q", names)
		}
	}
	sums := make([]string, 2)
	for i, dir := range releases {
		text, err := os.ReadFile(filepath.Join(dir, checksumFile))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = string(text)
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
	archives, err := filepath.Glob(filepath.Join(releases[0], "*.tar.xz"))
	if err != nil || len(archives) != 1 {
		t.Fatal(archives, err)
	}
	unpacked := t.TempDir()
	if out, err := exec.Command("tar", "-xf", archives[0], "-C", unpacked, "--strip-components=1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := filepath.Join(unpacked, "drover")
	for path, limit := range map[string]int64{archives[0]: archiveLimit, program: binaryLimit} {
		info, err := os.Stat(path)
		if err != nil || info.Size() > limit {
			t.Errorf("%s has %d bytes, more than %d: %v", filepath.Base(path), info.Size(), limit, err)
		}
	}
	compareWithPlainBuild(t, program)
	t.Run("package", func(t *testing.T) {
		packages, err := filepath.Glob(filepath.Join(releases[0], "*.deb"))
		if err != nil || len(packages) != 1 {
			t.Fatal(packages, err)
		}
		checkPackage(t, packages[0])
	})
}

// The bill of materials has the version of the release: cyclonedx-gomod takes the time of the author for
// that of the commit.
func TestBillOfMaterials(t *testing.T) {
	t.Parallel()
	const other = "v0.0.0-20261201134821-446b4f23cf99"
	text := `{"metadata": {"component": {"bom-ref": "pkg:golang/drover@` + other + `", "version": "` + other + `"}}, "components": [{"version": "v1.0.0"}]}`
	got, err := withVersion([]byte(text), "v1.2.0")
	if want := strings.ReplaceAll(text, other, "v1.2.0"); err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"no JSON", "{}"} {
		if _, err := withVersion([]byte(bad), "v1.2.0"); err == nil || !strings.Contains(err.Error(), "cyclonedx-gomod") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// compareWithPlainBuild compares the help and the version of every command.
func compareWithPlainBuild(t *testing.T, program string) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "drover")
	build := exec.Command("go", "build", "-o", plain, ".")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help := printed(t, program, "--help")
	commands := regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)*)(?: [<\[].*|  .*)?$`).FindAllStringSubmatch(help, -1)
	if len(commands) < 20 {
		t.Fatalf("the help has only %d commands:\n%s", len(commands), help)
	}
	for _, m := range commands {
		args := append(strings.Fields(m[1]), "--help")
		if got, want := printed(t, program, args...), printed(t, plain, args...); got != want {
			t.Errorf("drover %v prints\n%s\nwant\n%s", args, got, want)
		}
	}
	if version := printed(t, program, "version"); !strings.HasPrefix(version, "drover "+info.Main.Version+" (") || strings.Contains(version, "unknown") {
		t.Errorf("the version is %s", version)
	}
	for _, args := range [][]string{{"check", "configs/example.yaml"}, {"nonsense"}} {
		if got, want := printed(t, program, args...), printed(t, plain, args...); got != want {
			t.Errorf("drover %v prints\n%s\nwant\n%s", args, got, want)
		}
	}
}

// printed runs a program in the source tree and returns its output.
func printed(t *testing.T, program string, args ...string) string {
	t.Helper()
	command := exec.Command(program, args...)
	command.Dir = root
	out, err := command.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

// tool builds a program that tools/go.mod pins, and returns its path.
func tool(t *testing.T, name string) string {
	t.Helper()
	command := exec.Command("go", "-C", filepath.Join(root, "tools"), "tool", "-n", name)
	command.Env = append(os.Environ(), "GOWORK=off")
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
