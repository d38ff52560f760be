package convert

import "testing"

func TestToken(t *testing.T) {
	for _, test := range []struct {
		subject string
		n       int
		want    string
	}{{"a.b.c", 1, "a"}, {"a.b.c", 3, "c"}, {"a.b.c", 4, ""}, {"a", 1, "a"}} {
		if got := TokenOf(test.subject, test.n); got != test.want {
			t.Errorf("token %d of %s is %q, want %q", test.n, test.subject, got, test.want)
		}
	}
}
