package api

import (
	"log/slog"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestLogRequest(t *testing.T) {
	t.Parallel()
	want := LogRequest{Function: "a/b", Level: slog.LevelDebug, Last: 3}
	path, err := url.Parse(want.RequestPath())
	if err != nil || path.EscapedPath() != "/v1/functions/a%2Fb/log" {
		t.Fatalf("the path is %v, %v", path, err)
	}
	if got, err := ParseLogRequest("a/b", path.Query()); err != nil || got != want {
		t.Errorf("%s is decoded as %+v, %v", path, got, err)
	}
	if got, err := ParseLogRequest("f", nil); err != nil || got != (LogRequest{"f", slog.LevelInfo, 10, true}) {
		t.Errorf("without a query: %+v, %v", got, err)
	}
	for _, query := range []url.Values{{"level": {"loud"}}, {"last": {"many"}}, {"last": {"-1"}}, {"follow": {"maybe"}}} {
		for key := range query {
			if _, err := ParseLogRequest("f", query); err == nil || !strings.HasPrefix(err.Error(), key+" is ") {
				t.Errorf("%v: %v", query, err)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	got := []string{
		PausePath("a b", true, time.Time{}), PausePath("f", true, until), PausePath("f", false, until),
		ExplainPath("f", ""), ExplainPath("a&b", "message"),
	}
	want := []string{
		"/v1/functions/a%20b/pause", "/v1/functions/f/pause?until=2026-01-31T08%3A00%3A00Z", "/v1/functions/f/resume",
		"/v1/explain?about=f", "/v1/explain?about=a%26b&as=message",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	since := time.Now().Add(-time.Minute)
	for want, got := range map[string]string{
		"nothing changed; 1 function continues":                                      Changes{Kept: []string{"a"}}.String(),
		"added a; removed b, c; 0 functions continue":                                Changes{Added: []string{"a"}, Removed: []string{"b", "c"}}.String(),
		"no queue (for 1m0s)":                                                        FunctionProblem{Text: "no queue", Since: since}.OneLine(),
		"nothing is received: 1 message waits, the first of them 7: full (for 1m0s)": FunctionProblem{Text: "full", Since: since, Messages: 1, Message: "7", Blocks: true}.OneLine(),
		"2 messages wait, the first of them 7: full (for 1m0s)":                      FunctionProblem{Text: "full", Since: since, Messages: 2, Message: "7"}.OneLine(),
		"async I/O, blocks the loop":                                                 (&FunctionKind{Kind: "async", BlocksLoop: true}).Words(),
		"-":                                                                          (*FunctionKind)(nil).Words(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
