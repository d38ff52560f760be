package live_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/daemon/cli/live"
	"github.com/drover-run/drover/daemon/cli/live/livetest"
	"github.com/drover-run/drover/daemon/cli/term"
)

// table returns a table whose texts change with n.
func table(n int) *live.Table {
	t := &live.Table{Columns: []live.Column{
		{Title: "function", Min: 8}, {Title: "state", Drop: 1, Min: 9}, {Title: "waiting", Right: true, Drop: 2}, {Title: "in flight", Right: true, Drop: 4},
		{Title: "done/s", Right: true, Drop: 3}, {Title: "p50", Right: true, Drop: 8}, {Title: "p99", Right: true, Drop: 7}, {Title: "kind", Drop: 10}, {Title: "handler", Drop: 11, Min: 16},
	}}
	for i := range 3 + n%4 {
		t.Rows = append(t.Rows, []live.Cell{
			{Text: fmt.Sprintf("function-%d", i)}, {Text: []string{"receiving", "paused until Jan 31 15:04", "app down"}[(n+i)%3], Style: term.Green},
			{Text: fmt.Sprint(n * n * i)}, {Text: fmt.Sprint(n)}, {Text: fmt.Sprintf("%.1f", float64(n)*1.7)}, {Text: "12.3ms"}, {Text: "1.23s"},
			{Text: strings.Repeat("blocking I/O, ", n%2) + "releases the GIL"}, {Text: fmt.Sprintf("python function_app.f%d in app shop", i)},
		})
	}
	return t
}

// After a hundred frames with a resize in the middle, the screen has only the earlier text and the last
// frame below it. Every row is complete.
func TestFrames(t *testing.T) {
	for _, columns := range []int{60, 80, 100, 160} {
		for name, resize := range map[string]func(s *livetest.Screen, columns, rows int){"cut": (*livetest.Screen).Resize, "reflow": (*livetest.Screen).Reflow} {
			for _, to := range []int{columns - 21, columns + 34} {
				t.Run(fmt.Sprintf("%d to %d, %s", columns, to, name), func(t *testing.T) {
					screen := livetest.New(columns, 30)
					screen.Wraps = true
					want := []string{"$ drover demo"}
					fmt.Fprint(screen, want[0]+"\r\n")
					frame := live.NewFrame(screen)
					for n := range 100 {
						if n == 50 {
							resize(screen, to, 30)
						}
						if n%40 == 33 {
							fmt.Fprintf(frame, "log line %d\n", n)
							want = append(want, fmt.Sprintf("log line %d", n))
						}
						var lines []string
						frame.Show(func(columns, rows int) []string {
							lines = append([]string{"head"}, table(n).Lines(columns, term.Palette{})...)
							return lines
						})
						if got, all := screen.Lines(), slices.Concat(want, lines); !reflect.DeepEqual(got, all) {
							t.Fatalf("frame %d:\n%s\nwant\n%s", n, strings.Join(got, "\n"), strings.Join(all, "\n"))
						}
					}
					if err := frame.Close(); err != nil {
						t.Fatal(err)
					}
					last := screen.Lines()
					fmt.Fprint(frame, "the end\r\n")
					if got := screen.Lines(); !reflect.DeepEqual(got, append(last, "the end")) || !screen.CursorVisible() {
						t.Errorf("after the end:\n%s", strings.Join(got, "\n"))
					}
				})
			}
		}
	}
}

// A frame taller than the screen is cut, and does not scroll.
func TestFrameOfASmallScreen(t *testing.T) {
	screen := livetest.New(40, 5)
	frame := live.NewFrame(screen)
	for n := range 20 {
		frame.Show(func(columns, rows int) []string {
			return live.CutLines(table(n).Lines(columns, term.Palette{}), rows)
		})
		if got := screen.Lines(); !strings.HasPrefix(got[0], "function ") || len(got) > 5 || n%4 == 3 && got[4] != "... 3 more lines" {
			t.Fatalf("frame %d:\n%s", n, strings.Join(got, "\n"))
		}
	}
	if got := live.CutLines([]string{"a", "b", "c"}, 1); !reflect.DeepEqual(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}

func TestScreen(t *testing.T) {
	screen := livetest.New(40, 10)
	fmt.Fprint(screen, "before\r\n")
	frame := live.NewScreen(screen)
	for _, width := range []int{40, 30, 50} {
		screen.Resize(width, 10)
		frame.Show(func(columns, rows int) []string {
			return table(3).Lines(columns, term.Palette{})
		})
		if got := screen.Lines(); !screen.InAlternate() || len(got) != 7 || screen.CursorVisible() {
			t.Errorf("%d columns:\n%s", width, strings.Join(got, "\n"))
		}
	}
	fmt.Fprint(frame, "a warning\n")
	if err := frame.Close(); err != nil {
		t.Fatal(err)
	}
	if got := screen.Lines(); screen.InAlternate() || !screen.CursorVisible() || !reflect.DeepEqual(got, []string{"before", "a warning"}) {
		t.Errorf("after the end: %q", got)
	}
}

func TestTableDropsColumns(t *testing.T) {
	for columns, want := range map[int]string{
		0:  "function    state                      waiting  in flight  done/s     p50    p99  kind                            handler",
		62: "function  state      waiting  in flight  done/s     p50    p99",
		44: "function    state            waiting  done/s",
		30: "function   state       waiting",
		14: "function",
		5:  "func…",
	} {
		lines := table(1).Lines(columns, term.Palette{})
		if lines[0] != want {
			t.Errorf("%d columns: %q, want %q", columns, lines[0], want)
		}
		for _, line := range lines {
			if columns > 0 && term.Columns(line) > columns {
				t.Errorf("%d columns: %q has %d", columns, line, term.Columns(line))
			}
		}
	}
}

// Numbers are aligned right, also below wide characters, and columns keep their widths.
func TestTableAligns(t *testing.T) {
	widths := make(map[string]int)
	draw := func(name, n string) string {
		return strings.Join((&live.Table{
			Columns: []live.Column{{Title: "name"}, {Title: "n", Right: true}}, Rows: [][]live.Cell{{{Text: name}, {Text: n}}}, Widths: widths,
		}).Lines(40, term.Palette{}), "\n")
	}
	if got, want := draw("注文キュー", "1000"), "name           n\n注文キュー  1000"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got, want := draw("a", "7"), "name           n\na              7"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

func TestTableMarksTheCursor(t *testing.T) {
	cursor := 1
	one := table(0)
	one.Cursor = &cursor
	on := term.NewPalette(true, func(string) (string, bool) { return "", false })
	plain, colored := one.Lines(60, term.Palette{}), one.Lines(60, on)
	if !strings.HasPrefix(plain[2], "▸ function-1") || !strings.HasPrefix(plain[1], "  function-0") || !strings.HasPrefix(colored[2], "\x1b[7m▸ function-1") {
		t.Errorf("%q\n%q", plain, colored)
	}
}

func TestBars(t *testing.T) {
	bar := live.Bar{Label: "sending", Done: 250, Total: 1000, Elapsed: 1e9}
	for columns, want := range map[int]string{
		90: "sending  250 of 1000 ██████████······························ 250/s 3s left",
		60: "sending  250 of 1000 █████████▊·····························",
		28: "sending  250 of 1000 250/s",
		12: "sending  25…",
	} {
		if got := bar.Line(columns, term.Palette{}); got != want || term.Columns(got) > columns {
			t.Errorf("%d columns: %q, want %q", columns, got, want)
		}
	}
	if got, want := (live.Bar{Label: "replayed", Done: 7, Elapsed: 1e9}).Line(80, term.Palette{}), "replayed 7 7/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	screen := livetest.New(60, 5)
	progress := live.NewProgress(screen, term.Palette{}, "sending", 10)
	progress.Add(3)
	if got := screen.Lines(); len(got) != 1 || !strings.HasPrefix(got[0], "sending  3 of 10 ███") {
		t.Errorf("%q", got)
	}
	progress.Remove()
	if got := screen.Lines(); len(got) != 0 {
		t.Errorf("after the end: %q", got)
	}
}
