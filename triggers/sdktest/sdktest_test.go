package sdktest

import "testing"

// The output of a script counts only if the script ran to completion.
func TestReport(t *testing.T) {
	for out, want := range map[string]bool{
		"CHECK {\"name\":\"a\"}\nnoise\nCHECK {\"name\":\"b\"}\nDONE 2\n": true,
		"CHECK {\"name\":\"a\"}\nDONE 2\n":                                false,
		"CHECK {\"name\":\"a\"}\n":                                        false,
		"DONE 0\n":                                                        false,
	} {
		if _, done := report(t, out); done != want {
			t.Errorf("%q: done is %v", out, done)
		}
	}
}
