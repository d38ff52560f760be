package emulator

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/sdktest"
)

// The SDKs of other languages, used as in applications: with the connection string that the
// emulator prints.

func TestPythonSDK(t *testing.T) { runSDK(t, "servicebus.py") }

func TestJavaScriptSDK(t *testing.T) { runSDK(t, "servicebus.js") }

func runSDK(t *testing.T, script string) {
	t.Helper()
	t.Parallel()
	b := start(t, Options{})
	sdktest.Run(t, filepath.Join("testdata", script), b.ConnectionString(b.address))
}

func TestExamplesOfTheDocumentation(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"python", "js"} {
		t.Run(language, func(t *testing.T) {
			b := start(t, Options{})
			if err := b.CreateQueue("orders", QueueOptions{}); err != nil {
				t.Fatal(err)
			}
			out := sdktest.RunExample(t, "../../../docs/azure-service-bus.md", language, "Endpoint=sb://127.0.0.1:5672;…", b.ConnectionString(b.address))
			if counts, err := b.Counts("orders"); err != nil || counts != (Counts{}) || !strings.Contains(out, "id") {
				t.Errorf("%s; left: %+v %v", out, counts, err)
			}
		})
	}
}
