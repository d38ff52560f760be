package pairs

import (
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestPairs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want Pairs
		err  string
	}{
		{[]string{"-H", "a=b"}, Pairs{"a": "b"}, ""},
		{[]string{"-H", "a:b"}, Pairs{"a": "b"}, ""},
		{[]string{"-H", "a: b c "}, Pairs{"a": "b c"}, ""},
		{[]string{"-H", "a= b "}, Pairs{"a": " b "}, ""},
		{[]string{"-H", "a=b:c=d"}, Pairs{"a": "b:c=d"}, ""},
		{[]string{"-H", "url: http://x/?y=z"}, Pairs{"url": "http://x/?y=z"}, ""},
		{[]string{"-H", "a="}, Pairs{"a": ""}, ""},
		{[]string{"-H", "a=1", "--header", "b=2;c", "-H", "a=3"}, Pairs{"a": "3", "b": "2;c"}, ""},
		{nil, nil, ""},
		{[]string{"-H", "plain"}, nil, `--header: "plain" is not NAME=VALUE or NAME: VALUE`},
		{[]string{"-H", "=b"}, nil, `"=b" is not NAME=VALUE`},
		{[]string{"-H", " : b"}, nil, `" : b" is not NAME=VALUE`},
		{[]string{"-H"}, nil, "NAME=VALUE"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			var line struct {
				Header Pairs `short:"H"`
			}
			parser, err := kong.New(&line, kong.Writers(io.Discard, io.Discard))
			if err != nil {
				t.Fatal(err)
			}
			_, err = parser.Parse(test.args)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v; want %q", err, test.err)
				}
				return
			}
			if err != nil || !maps.Equal(line.Header, test.want) {
				t.Errorf("%v, %v; want %v", line.Header, err, test.want)
			}
		})
	}
}
