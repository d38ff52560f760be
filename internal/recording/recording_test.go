package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// The picture has the colored words of a command, and nothing that a browser would load or run.
func TestSVG(t *testing.T) {
	frames, err := record([]string{"sh", "-c", `printf 'one <1>\r\n\033[1;31mred\033[0m   wide  \033[32mgreen\033[0m\r\n'`}, "try it", 40, 5)
	if err != nil {
		t.Fatal(err)
	}
	text := drawSVG(frames, 40, 5)
	for _, want := range []string{">$</tspan>", "try it</tspan>", "one &lt;1&gt;</tspan>", `class="r o">red</tspan>`, ">wide</tspan>", `class="g">green</tspan>`, "@keyframes f{0.00%"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	checkPicture(t, text)
}

func TestMissingCommand(t *testing.T) {
	if _, err := record([]string{"no-such-command"}, "", 40, 5); err == nil || !strings.HasPrefix(err.Error(), "finding the command: ") {
		t.Error(err)
	}
	if _, err := record([]string{"false"}, "", 40, 5); err == nil || !strings.HasPrefix(err.Error(), "running the command: ") {
		t.Error(err)
	}
}

// The recording in the documentation is small enough for a page, and loads no other files.
func TestRecordingOfTheDemo(t *testing.T) {
	text, err := os.ReadFile("../../docs/demo.svg")
	if err != nil {
		t.Fatalf("%v; make recording writes it", err)
	}
	if len(text) > 200<<10 {
		t.Errorf("it has %d bytes; at most 200 kB are allowed", len(text))
	}
	for _, want := range []string{"drover demo", "resize", "digest", "fetch", "lost 0"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it lacks %q; make recording writes it", want)
		}
	}
	checkPicture(t, string(text))
}

// checkPicture checks that a picture is well-formed XML without scripts, links and foreign content.
func checkPicture(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		element, is := token.(xml.StartElement)
		if !is {
			continue
		}
		switch element.Name.Local {
		case "svg", "style", "rect", "circle", "g", "text", "tspan":
		default:
			t.Errorf("it has an element %s", element.Name.Local)
		}
		for _, a := range element.Attr {
			if strings.HasPrefix(a.Name.Local, "on") || strings.Contains(a.Name.Local, "href") {
				t.Errorf("%s has an attribute %s", element.Name.Local, a.Name.Local)
			}
		}
	}
}
