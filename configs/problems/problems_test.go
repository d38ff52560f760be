package problems

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"trigger", "handler", "timeout", "retry"}
	for word, want := range map[string]string{"triger": "trigger", "Handler": "handler", "tiemout": "timeout", "retries": "retry", "xyzzy": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %s is %q, want %q", word, got, want)
		}
	}
}
