package protocol

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestProfiledFrame(t *testing.T) {
	t.Parallel()
	const good = `{"profile":7,"lines":[{"function":"f","file":"a.py","line":3,"start":1},{"function":"g","file":"b.py","line":9,"start":8}],` +
		`"stacks":[{"stack":[1,0],"samples":2,"time_us":20000}],"dropped":{"samples":1,"time_us":10000}}`
	var f ProfiledFrame
	if err := DecodeFrame(Profiled, []byte(good), &f); err != nil {
		t.Fatal(err)
	}
	if f.Profile != 7 || f.Lines[f.Stacks[0].Lines[0]].Function != "g" || f.Stacks[0].Samples != 2 || f.Stacks[0].TotalTime() != 20*time.Millisecond || f.Lost.Samples != 1 {
		t.Errorf("%+v", f)
	}
	lines := `"lines":[{"function":"f","file":"a.py","line":3,"start":1}],`
	for text, want := range map[string]string{
		`[]`: "a PROFILED that is no JSON",
		`{` + lines + `"stacks":[{"stack":[],"samples":1}]}`:                                         "a stack of 0 frames",
		`{` + lines + `"stacks":[{"stack":[0` + strings.Repeat(",0", MaxStackFrames) + `]}]}`:        "a stack of 129 frames, where there are 1 to 128",
		`{` + lines + `"stacks":[{"stack":[1]}]}`:                                                    "line 1 of 1",
		`{` + lines + `"stacks":[{"stack":[-1]}]}`:                                                   "line -1 of 1",
		`{` + lines + `"stacks":[{"stack":[0],"samples":-1}]}`:                                       "with -1 samples",
		`{` + lines + `"stacks":[{"stack":[0],"time_us":9223372036854775807}]}`:                      "9223372036854775807 µs",
		`{"dropped":{"samples":-2}}`:                                                                 "drops -2 samples",
		`{` + lines + `"stacks":[{"stack":[0]}` + strings.Repeat(`,{"stack":[0]}`, MaxStacks) + `]}`: "10001 stacks, where 10000 are the most",
		`{"lines":[{}` + strings.Repeat(`,{}`, MaxProfileLines) + `]}`:                               "20001 lines, where 20000 are the most",
	} {
		if err := DecodeFrame(Profiled, []byte(text), new(ProfiledFrame)); !errors.Is(err, ErrProtocol) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}
