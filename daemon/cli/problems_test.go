package cli

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// eachTermCounts is an environment variable. With it this program is the command drover, which does
// not ignore a second SIGTERM soon after the first.
const eachTermCounts = "DROVER_TEST_EACH_TERM_COUNTS"

func TestMain(m *testing.M) {
	if os.Getenv(eachTermCounts) != "" {
		os.Exit(runProcess(0))
	}
	goleak.VerifyTestMain(m)
}
