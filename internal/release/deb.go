package release

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debFiles is the directory with nfpm's description of the package, and with its scripts.
const debFiles = "deploy/deb"

// writeDeb writes a Debian package: the program in /usr/bin, the units, and an example of a
// configuration. nfpm packs a directory that has exactly these files.
func writeDeb(ctx context.Context, cfg Config, p *program) error {
	staging, err := os.MkdirTemp("", "drover-deb-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := stageDeb(cfg.Source, p, staging); err != nil {
		return err
	}
	out, err := filepath.Abs(filepath.Join(cfg.Out, p.fileName("deb")))
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, cfg.NFPM, "package", "--packager", "deb", "--config", "nfpm.yaml", "--target", out)
	command.Dir = staging
	command.Env = append(os.Environ(), "VERSION="+p.version, "ARCH="+p.Arch, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", p.time.Unix()))
	return runCommand(command)
}

// stageDeb copies the files of the package to a directory.
func stageDeb(source string, p *program, staging string) error {
	from := map[string]string{"drover": p.path, "drover.yaml": filepath.Join(source, "configs/example.yaml"), "CHANGELOG.md": filepath.Join(source, "CHANGELOG.md")}
	for _, name := range []string{"nfpm.yaml", "postinst", "prerm", "postrm"} {
		from[name] = filepath.Join(source, debFiles, name)
	}
	for _, unit := range units {
		from[filepath.Base(unit)] = filepath.Join(source, unit)
	}
	for name, path := range from {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".service") {
			content = []byte(packagedUnit(string(content)))
		}
		mode := os.FileMode(0o644)
		if !strings.Contains(name, ".") { // the program, and the scripts
			mode = 0o755
		}
		to := filepath.Join(staging, name)
		if err := os.WriteFile(to, content, mode); err != nil {
			return err
		}
		if err := os.Chtimes(to, p.time, p.time); err != nil {
			return err
		}
	}
	return nil
}

// packagedUnit returns a unit for the package: the program is in /usr/bin, and the instructions to copy the
// unit are removed.
func packagedUnit(text string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(text, "/usr/local/bin/drover", "/usr/bin/drover")) {
		if strings.HasPrefix(line, "# data_dir:") {
			line, _, _ = strings.Cut(line, " Install:")
			line = strings.TrimSpace(line) + "\n"
		} else if strings.HasPrefix(line, "# systemctl daemon-reload") {
			continue
		}
		out.WriteString(line)
	}
	return out.String()
}
