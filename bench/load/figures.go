package load

import (
	"context"
	"os/exec"
	"strings"
)

// Commit names the commit that is measured, for the first line of a report.
func Commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "commit unknown: " + err.Error()
	}
	return "commit " + strings.TrimSpace(string(out))
}
