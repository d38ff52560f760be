package dispatch

import (
	"testing"

	"github.com/drover-run/drover/triggers"
)

type responds struct{ triggers.Trigger }

func (responds) ResponseCounts() map[string]int64 { return nil }

type discards struct{ triggers.Trigger }

func (discards) DiscardsRejected() {}

// A rejected message is dead-lettered, unless its source has no dead letters.
func TestRejectedText(t *testing.T) {
	t.Parallel()
	for want, source := range map[string]triggers.Trigger{
		"message dead-lettered":                           nil,
		"run failed for the last time; it is not retried": discards{},
		"request failed":                                  responds{},
	} {
		if got := rejectedText(source); got != want {
			t.Errorf("%T: %q, want %q", source, got, want)
		}
	}
}
