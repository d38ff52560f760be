package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkPackage installs, upgrades, removes and purges a Debian package with dpkg, in an overlay of this
// machine's root. It needs root, dpkg and overlayfs; the units are verified if systemd-analyze exists. A
// stand-in for systemctl records what the scripts of the package call.
func checkPackage(t *testing.T, deb string) {
	for _, name := range []string{"dpkg", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	if reason := lacksRights(t); reason != "" {
		t.Skip(reason) // a machine of CI may be a container
	}
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "testdata/install.sh", deb, t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	steps := make(map[string][]string) // calls of systemctl and files, by step
	var step string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "== "); found {
			step = name
		}
		if strings.HasPrefix(line, "systemctl ") || strings.HasPrefix(line, "left ") || strings.HasPrefix(line, "drover v") || line == "units verified" {
			steps[step] = append(steps[step], line)
		}
	}
	state := []string{"var/lib/private/drover", "var/lib/drover", "var/lib/private/drover-orders", "var/lib/drover-orders", "etc/systemd/system/multi-user.target.wants/drover.service"}
	for step, want := range map[string][]string{
		"install": {"systemctl daemon-reload", "drover v"}, // it starts nothing
		"upgrade": {"systemctl daemon-reload", "systemctl daemon-reload", "systemctl try-restart drover.service drover@*.service"},
		"remove":  append([]string{"systemctl stop drover.service drover@*.service", "systemctl daemon-reload", "left etc/drover/drover.yaml"}, prefixed("left ", state)...),
		"purge":   {"systemctl daemon-reload", "left etc/drover/drover.yaml"},
		"verify":  {"units verified"},
	} {
		if _, err := exec.LookPath("systemd-analyze"); err != nil && step == "verify" {
			t.Log("the units were not verified: systemd-analyze is missing: apt-get install systemd")
			continue
		}
		if got := steps[step]; !sameBeginnings(got, want) {
			t.Errorf("%s: %q; want %q\n%s", step, got, want, out)
		}
	}
}

// lacksRights returns which right to install a package in an overlay is missing here; empty if none is.
func lacksRights(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "installing the Debian package needs root"
	}
	dir := t.TempDir()
	mount := `mount -t tmpfs tmpfs "$0" && cd "$0" && mkdir upper work root && mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root`
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", mount, dir).CombinedOutput(); err != nil {
		return "installing the Debian package needs the right to mount an overlay: " + strings.TrimSpace(string(out))
	}
	return ""
}

func prefixed(prefix string, lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = prefix + line
	}
	return out
}

// sameBeginnings reports whether each line begins with the wanted text.
func sameBeginnings(lines, want []string) bool {
	if len(lines) != len(want) {
		return false
	}
	for i := range lines {
		if !strings.HasPrefix(lines[i], want[i]) {
			return false
		}
	}
	return true
}

// TestPackage checks a package that was built earlier: DROVER_TEST_DEB names it. TestRelease checks the
// one that it builds.
func TestPackage(t *testing.T) {
	deb := os.Getenv("DROVER_TEST_DEB")
	if deb == "" {
		t.Skip("set DROVER_TEST_DEB to a Debian package, such as one of make release")
	}
	path, err := filepath.Abs(deb)
	if err != nil {
		t.Fatal(err)
	}
	checkPackage(t, path)
}
