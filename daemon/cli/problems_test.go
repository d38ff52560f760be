package cli

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/drover-run/drover/daemon/internal/daemontest"
)

// eachTermCounts is an environment variable. With it this program is the command drover, which does
// not ignore a second SIGTERM soon after the first.
const eachTermCounts = "DROVER_TEST_EACH_TERM_COUNTS"

func TestMain(m *testing.M) {
	if os.Getenv(eachTermCounts) != "" {
		os.Exit(runProcess(0))
	}
	if err := daemontest.BypassShims(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
