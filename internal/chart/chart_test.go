package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestDrawingIsWellFormed(t *testing.T) {
	var d Drawing
	d.Put(`<svg xmlns="http://www.w3.org/2000/svg" aria-label="%s">`, `"a" < b & 'c'`)
	d.Text(1, 2.25, `class="name"`, "100 % <script>")
	d.Line(0, 0, 10, 5.55, `stroke="#000"`)
	d.Polyline([][2]float64{{0, 1}, {2.04, 3}}, `fill="none"`)
	d.WriteString("</svg>\n")
	decoder, texts := xml.NewDecoder(strings.NewReader(d.String())), ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, d.String())
		}
		if text, ok := token.(xml.CharData); ok {
			texts += strings.TrimSpace(string(text))
		}
	}
	if texts != "100 % <script>" {
		t.Errorf("the text is %q", texts)
	}
	for _, want := range []string{`<text x="1.0" y="2.2" class="name">`, `<line x1="0.0" y1="0.0" x2="10.0" y2="5.5" stroke="#000"/>`, `points="0.0,1.0 2.0,3.0"`} {
		if !strings.Contains(d.String(), want) {
			t.Errorf("%s is not in %s", want, d.String())
		}
	}
}

func TestScale(t *testing.T) {
	for most, want := range map[float64][2]float64{
		0: {1, 1}, 1: {1, 0.5}, 4: {4, 1}, 4.1: {6, 2}, 17_500: {20_000, 5_000}, 99: {100, 50}, 0.03: {0.03, 0.01},
	} {
		end, tick := Scale(most)
		if end < most || end/tick > 5.001 || !near(end, want[0]) || !near(tick, want[1]) {
			t.Errorf("up to %v: an axis to %v with a tick every %v; want %v", most, end, tick, want)
		}
	}
}

func near(a, b float64) bool { return a > b*0.999999 && a < b*1.000001 }

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 1234: "1234", 9999: "9999", 17_500: "17.5k", 500_000: "500k", 2e6: "2M", 12_345_678: "12.3M"} {
		if got := Number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
